// Keeps the page as the run is, and sends what its buttons say. Parts arrive as HTML in which the
// server has escaped everything that a task, a model or a person wrote.
"use strict";
const said = document.getElementById("said");

function isBusy(section) {
  // A part in which somebody writes or has just been answered is left alone.
  const field = document.activeElement;
  const isTyping = field && section.contains(field) && field.matches("input, textarea");
  return isTyping || [...section.querySelectorAll("textarea, input")].some((f) => f.value !== f.defaultValue);
}

function put(name, html) {
  const section = document.getElementById("part-" + name);
  if (!section || isBusy(section)) return;
  const open = new Set([...section.querySelectorAll("details[open]")].map((d) => d.id));
  const scrolled = [...section.querySelectorAll(".graph")].map((g) => g.scrollLeft);
  section.innerHTML = html;
  for (const details of section.querySelectorAll("details")) details.open = open.has(details.id);
  section.querySelectorAll(".graph").forEach((g, n) => { g.scrollLeft = scrolled[n] || 0; });
}

const events = new EventSource("events");
events.addEventListener("parts", (event) => {
  for (const [name, html] of Object.entries(JSON.parse(event.data))) put(name, html);
  said.textContent = "live";
});
events.addEventListener("end", () => { events.close(); said.textContent = "ended"; });
events.addEventListener("trouble", (event) => { said.textContent = JSON.parse(event.data); });
events.onerror = () => { said.textContent = "not connected"; };

document.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target, button = event.submitter;
  const input = JSON.parse((button && button.dataset.input) || form.dataset.input || "{}");
  for (const [name, value] of new FormData(form)) input[name] = value;
  const update = (button && button.dataset.update) || form.dataset.update;
  const answer = form.querySelector(".said-back");
  form.querySelectorAll("button").forEach((b) => { b.disabled = true; });
  try {
    const reply = await fetch("act", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ update, input }),
    });
    const told = await reply.json();
    answer.textContent = told.message;
    if (reply.ok) form.reset();
  } catch (error) {
    answer.textContent = "not sent: " + error.message;
  }
  form.querySelectorAll("button").forEach((b) => { b.disabled = false; });
});
