// What the reader answered on these pages: the first choice opened counts. It is kept in this browser and sent nowhere.

const KEY = "llmlab-answers";

/** The answers with one more, unless the question was answered before. */
export function note(answers, name, right) {
  return name in answers ? answers : { ...answers, [name]: right };
}

/** A sentence about some questions: how many were answered, how many rightly at once. */
export function summary(names, answers) {
  const answered = names.filter((name) => name in answers);
  const right = answered.filter((name) => answers[name] === true);
  if (!answered.length) return `${names.length} questions, none answered yet`;
  return `${right.length} right at once, ${answered.length} of ${names.length} answered`;
}

/** What is kept; anything that is no such record counts as empty. */
export function parse(text) {
  try {
    const found = JSON.parse(text);
    return found && typeof found === "object" && !Array.isArray(found) ? found : {};
  } catch {
    return {};
  }
}

function load() {
  try {
    return parse(localStorage.getItem(KEY));
  } catch {
    return {}; // a browser that keeps nothing
  }
}

function save(answers) {
  try {
    localStorage.setItem(KEY, JSON.stringify(answers));
  } catch {
    // the page works without it
  }
}

function onToggle(event) {
  const choice = event.target;
  const question = choice.closest?.(".llmlab-question");
  if (!question || !choice.open) return;
  save(note(load(), question.dataset.name, choice.classList.contains("right")));
}

function fill() {
  const answers = load();
  for (const place of document.querySelectorAll(".llmlab-answers")) {
    place.textContent = summary(place.dataset.names.split(" ").filter(Boolean), answers);
  }
}

if (typeof document !== "undefined") {
  document.addEventListener("toggle", onToggle, true); // it does not bubble
  fill();
}
