"`python -m llmlab` is the command `llmlab`."

import sys

from llmlab.course.lab import main

if __name__ == "__main__":
    sys.exit(main())
