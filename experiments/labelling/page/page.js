"use strict";
// Data become text nodes, never markup. An answer names its showing, so that sending it again is safe.

const $ = (id) => document.getElementById(id);
const KEYS = {
  ArrowLeft: "left", ArrowRight: "right", ArrowUp: "tie", t: "tie", ArrowDown: "skip", s: "skip", u: "undo",
};
const RETRY_MS = 1000;
let now = null;      // what the server last said
let since = 0;       // when this query could first be looked at
let away = 0;        // how long the page was hidden since
let hiddenAt = null;
let busy = true;

function element(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function messages(list) {
  return list.map((one) => {
    const part = element("div", "text");
    if (one.role) part.append(element("span", "role", one.role));
    part.append(one.text);
    return part;
  });
}

function film(side) {
  const made = element("video");
  Object.assign(made, { muted: true, loop: true, autoplay: true, playsInline: true });
  made.addEventListener("canplay", () => { made.previousSibling?.remove(); }, { once: true });
  made.src = `/film/${now.showing}/${side}.mp4`;
  made.addEventListener("error", () => tell("A film could not be drawn; skip this one."));
  return made;
}

/** Both from the beginning, once both are there: nobody should judge by which came first. */
function together(films) {
  let missing = films.length;
  for (const one of films) {
    one.addEventListener("canplay", () => {
      if (--missing === 0) {
        films.forEach((other) => { other.currentTime = 0; other.play().catch(() => {}); });
        startClock();
      }
    }, { once: true });
  }
}

/** Films that nobody needs any more, so that they do not keep the answer waiting for a free connection. */
function stopWaiting() {
  for (const one of document.querySelectorAll("video")) {
    if (one.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA) continue;
    one.removeAttribute("src");
    one.load();
  }
}

function startClock() {
  since = performance.now();
  away = 0;
}

function tell(sentence) {
  $("notice").textContent = sentence || "";
  $("notice").hidden = !sentence;
}

function show(state) {
  const isNew = now === null || now.showing !== state.showing;
  now = state;
  document.title = state.showing ? `${state.answered + 1} / ${state.total}` : "done";
  $("title").textContent = state.title;
  $("rater").textContent = `as ${state.rater}`;
  $("count").textContent = `${state.answered} of ${state.total}`;
  $("done").style.width = `${100 * state.answered / state.total}%`;
  $("bar").setAttribute("aria-valuemax", state.total);
  $("bar").setAttribute("aria-valuenow", state.answered);
  $("agreement").hidden = !(state.showing && state.agreement.length);
  $("agreement").querySelector("ul").replaceChildren(...state.agreement.map((one) => element("li", "", one)));
  $("undo").hidden = !state.undo;
  document.body.classList.toggle("filmed", state.filmed && Boolean(state.showing));
  const compares = state.mode === "compare";
  $("over").hidden = Boolean(state.showing);
  $("question").hidden = $("say-skip").hidden = !state.showing;
  $("sides").hidden = $("choices").hidden = !(state.showing && compares);
  $("writing").hidden = $("save").hidden = !(state.showing && !compares);
  $("prompt").hidden = !(state.showing && state.prompt.length) || state.filmed;
  if (isNew) fresh(state, compares);
  tell(state.notice);
}

function fresh(state, compares) {
  if (!state.showing) {
    $("over").replaceChildren(
      element("p", "", "That was all. Thank you."),
      element("p", "", "The files are written. Ctrl-C in the terminal ends the server."),
      ...state.agreement.map((one) => element("p", "", one)),
    );
    return;
  }
  $("prompt").replaceChildren(...messages(state.prompt));
  $("question").textContent = !compares ? "What should be answered?"
    : state.filmed ? `Which is better at this: ${state.prompt[0].text}?` : "Which answer is better?";
  if (!compares) write(state);
  else if (state.filmed) {
    const films = ["left", "right"].map((side) => {
      const made = film(side);
      $(side).querySelector(".body").replaceChildren(element("span", "role", "drawing …"), made);
      return made;
    });
    together(films);
  } else {
    for (const side of ["left", "right"]) $(side).querySelector(".body").replaceChildren(...messages(state[side]));
    window.scrollTo(0, 0);
  }
  startClock();
}

function write(state) {
  const text = $("text");
  text.value = localStorage.getItem(draft()) || "";
  $("words").replaceChildren(...state.words.map((word) => {
    const button = element("button", "", word);
    button.type = "button";
    button.addEventListener("click", () => {
      text.value = `${text.value.trimEnd()} ${word} `.trimStart();
      keep();
    });
    return button;
  }));
  text.focus();
}

const draft = () => `draft ${now.title} ${now.rater} ${now.showing}`;
const keep = () => localStorage.setItem(draft(), $("text").value);

async function send(path, body) {
  for (;;) {
    try {
      const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
      const reply = await fetch(path, options);
      const said = await reply.json();
      if (reply.status === 409) return { stale: said.error };
      return reply.ok ? said : { error: said.error };
    } catch {
      tell("The server does not answer. Nothing is lost; trying again …");
      await new Promise((go) => setTimeout(go, RETRY_MS));
    }
  }
}

async function ask(path, body) {
  if (busy) return;
  busy = true;
  document.querySelectorAll("footer button").forEach((one) => { one.disabled = true; });
  let state = await send(path, body);
  if (state.stale) {
    const current = await send("/state");
    state = current.error ? current : { ...current, notice: state.stale };
  }
  busy = false;
  document.querySelectorAll("footer button").forEach((one) => { one.disabled = false; });
  document.querySelectorAll(".picked").forEach((one) => one.classList.remove("picked"));
  if (state.error) {
    tell(state.error);
    return;
  }
  if (body) localStorage.removeItem(draft());
  show(state);
}

function answer(said) {
  if (busy || !now || !now.showing) return;
  const text = said === "written" ? $("text").value : "";
  stopWaiting();
  if (said === "left" || said === "right") $(said).classList.add("picked");
  const seconds = Math.max(0, performance.now() - since - away) / 1000;
  ask("/answer", { showing: now.showing, said, seconds, text });
}

function undo() {
  if (!busy && now && now.undo) ask("/undo", { showing: now.undo });
}

document.addEventListener("keydown", (event) => {
  if (!now || event.altKey || event.metaKey || event.repeat) return;
  if (event.key === "Enter" && event.ctrlKey && now.mode === "demonstrate") answer("written");
  if (event.target === $("text")) return;
  const said = event.ctrlKey ? undefined : KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  const isOffered = said === "undo" || said === "skip" || now.mode === "compare";
  if (!said || !isOffered) return;
  event.preventDefault();
  if (said === "undo") undo();
  else answer(said);
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) hiddenAt = performance.now();
  else if (hiddenAt !== null) {
    away += performance.now() - Math.max(hiddenAt, since);
    hiddenAt = null;
  }
});
document.querySelectorAll("[data-said]").forEach((button) => {
  button.addEventListener("click", (event) => {
    button.blur();
    if (event.detail <= 1) answer(button.dataset.said); // the second click of two would answer the next query
  });
});
$("undo").addEventListener("click", () => { $("undo").blur(); undo(); });
$("text").addEventListener("input", keep);

history.replaceState(null, "", "/"); // the token is a cookie by now, and should not stay where others can read it
busy = false;
ask("/state");
