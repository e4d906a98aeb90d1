"Large language models, one runnable chapter at a time: each module is exported by the chapter of the same name."
__version__ = "0.1.0"


def __dir__() -> list[str]:
    from pkgutil import iter_modules

    return ["__version__", *sorted(m.name for m in iter_modules(__path__) if not m.name.startswith("_"))]


def __getattr__(name: str):
    "A module, imported when it is first asked for: `llmlab.attention`."
    if name not in __dir__():
        raise AttributeError(f"module 'llmlab' has no attribute {name!r}; its modules are {', '.join(__dir__()[1:])}")
    from importlib import import_module

    return import_module(f"llmlab.{name}")
