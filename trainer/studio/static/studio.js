// The playground's stream: one JSON object a line, each shown as text in its model's box.
"use strict";
const form = document.getElementById("play");
const box = (who) => document.getElementById(who);
let asking = null;

async function ask(event) {
  event.preventDefault();
  if (asking) asking.abort();
  asking = new AbortController();
  for (const who of ["weak", "strong", "both", "version"]) box(who).textContent = "";
  const told = box("playing");
  told.textContent = "asking; the first question loads the models";
  try {
    const body = new URLSearchParams(new FormData(form));
    const answer = await fetch("/play", { method: "POST", body, signal: asking.signal });
    if (!answer.ok) throw new Error(new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[role=alert]")?.textContent ?? answer.statusText);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const lines = (rest + part.value).split("\n");
      rest = lines.pop();
      lines.filter(Boolean).map(JSON.parse).forEach(show);
    }
    told.textContent = "";
  } catch (error) {
    if (error.name !== "AbortError") told.textContent = error.message;
  }
}

function show(said) {
  if (said.version) box("version").textContent = said.version;
  if (said.text) box(said.who).append(said.text);
  if (said.error) box(said.who).append(`[${said.error}]`);
}

if (form) form.addEventListener("submit", ask);
