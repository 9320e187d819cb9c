"use strict";

// -- the rules of verdict.py; a test compares them --

const WORDS = { fake: "Fake", real: "Real", unsure: "Unsure", not_applicable: "Not judged" };
const FEWEST_FRAMES = 3;
const FAKE_SHARE = 0.1;

function moved(probability, prior) {
  if (!(probability > 0 && probability < 1)) return probability;
  const fake = probability * prior;
  const real = (1 - probability) * (1 - prior);
  return fake / (fake + real);
}

function bandsAt(prevalence, model) {
  const fake = model.fake_above.threshold;
  const real = model.real_below.threshold;
  return {
    prevalence,
    fakeAbove: Math.max(fake, moved(fake, 1 - prevalence)),
    realBelow: Math.min(real, moved(real, 1 - prevalence)),
  };
}

function wordOf(score, bands) {
  if (score >= bands.fakeAbove) return "fake";
  return score < bands.realBelow ? "real" : "unsure";
}

// Of a face, or of a person with moments: the word, and why it is unsure where the score is not.
function judgePart(part, bands, model) {
  if (part.score === null) return { answer: "not_applicable", why: part.reason };
  if (model.doubt) return { answer: "unsure", why: model.doubt };
  const answer = wordOf(part.score, bands);
  if (answer === "unsure") return { answer, why: null };
  const flips = part.stability
    ? Object.keys(part.stability.scores).filter((name) => wordOf(part.stability.scores[name], bands) !== answer)
    : [];
  if (flips.length) return { answer: "unsure", why: `It is ${answer} as it came, but not after: ${flips.join(", ")}.` };
  if (answer === "real" && part.moments) {
    const seen = part.moments.filter((one) => one.score !== null);
    const fakes = seen.filter((one) => wordOf(one.score, bands) === "fake").length;
    if (fakes >= Math.max(FEWEST_FRAMES, FAKE_SHARE * seen.length)) {
      return { answer: "unsure", why: `It is real on the whole, but ${fakes} of ${seen.length} frames look fake by themselves.` };
    }
  }
  return { answer, why: null };
}

function judgeWhole(judged) {
  return ["fake", "unsure", "real"].find((word) => judged.some((one) => one.answer === word)) || "not_applicable";
}

// -- small tools --

const $ = (id) => document.getElementById(id);

function el(tag, options = {}, ...children) {
  const { data, style, ...rest } = options;
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(rest)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  Object.assign(made.style, style || {});
  made.append(...children.filter((child) => child !== null));
  return made;
}

const percent = (share) => `${(100 * share).toFixed(share < 0.1 || share > 0.9 ? 1 : 0)} %`;
const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`;

function chanceOf(share) {
  if (share < 0.001) return "under 0.1 %";
  if (share > 0.999) return "over 99.9 %";
  return percent(share);
}

function oneIn(prevalence) {
  if (prevalence > 0.9) return `${Math.round(100 * prevalence)} in 100`;
  if (prevalence > 0.45) return prevalence < 0.55 ? "1 in 2" : `${Math.round(10 * prevalence)} in 10`;
  const among = 1 / prevalence;
  const rounded = among > 20 ? Number(among.toPrecision(2)) : among > 4 ? Math.round(among) : Number(among.toFixed(1));
  return `1 in ${rounded.toLocaleString("en")}`;
}

// -- the state of this visit --

const state = { model: null, key: null, past: [], shown: null, cancel: null, busy: false };

const prevalence = () => 1 / (1 + Math.exp(-Number($("prevalence").value)));

function say(text) {
  $("status").textContent = text;
}

function complain(text, again) {
  const note = el("div", { className: "note" }, el("p", {}, text));
  if (again) note.append(el("button", { type: "button", onclick: () => { note.remove(); again.run(); } }, again.label));
  note.append(el("button", { type: "button", className: "quiet", onclick: () => note.remove() }, "Dismiss"));
  note.setAttribute("role", "alert");
  $("messages").append(note);
}

// -- talking to the service --

async function ask(path, options = {}) {
  for (let tries = 0; ; tries += 1) {
    const headers = { ...(options.headers || {}) };
    if (state.key) headers.Authorization = `Bearer ${state.key}`;
    let answer;
    try {
      answer = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The service cannot be reached. Is it still running?");
    }
    if (answer.ok) return answer.status === 204 ? null : answer.json();
    if (answer.status === 401) {
      await askForKey(Boolean(state.key));
    } else if ((answer.status === 503 || answer.status === 429) && tries < 5) {
      const seconds = Number(answer.headers.get("Retry-After")) || 1;
      say(`The service is busy. Trying again in ${seconds} s …`);
      await new Promise((done) => setTimeout(done, 1000 * seconds));
    } else {
      const problem = await answer.json().catch(() => ({}));
      throw new Error(problem.detail ? `The service ${problem.detail}.` : `The service answered ${answer.status}.`);
    }
  }
}

function askForKey(wrong) {
  return new Promise((done) => {
    $("key-wrong").textContent = wrong ? "That key is not known here." : "";
    $("key-form").onsubmit = () => {
      state.key = $("key").value.trim();
      $("key").value = "";
      done();
    };
    if (!$("key-dialog").open) $("key-dialog").showModal();
  });
}

async function describe() {
  const model = (state.model = await ask("/v1/model"));
  const limits = model.limits;
  $("model").replaceChildren("Detector ", el("strong", {}, model.name));
  $("promise").textContent =
    `${limits.formats.join(", ")} up to ${Math.round(limits.file_bytes / 2 ** 20)} MB; ` +
    `MP4, MOV, WebM up to ${Math.round(limits.clip_seconds / 60)} min.`;
  $("kept").textContent = model.keeps_uploads
    ? "Whoever runs this service keeps the pictures and clips that are sent to it."
    : "Pictures are judged in memory. Nothing that you send is kept.";
  const auc = model.validation.auc;
  const figure = auc && auc.value !== null
    ? `On ${auc.n.toLocaleString("en")} validation faces it ranks a fake above a real face in ${percent(auc.value)} of pairs (95 % interval ${percent(auc.low)} to ${percent(auc.high)}). `
    : "";
  $("figures").textContent =
    `${model.name} (${model.architecture}). ${figure}` +
    `Thresholds: fake from ${model.fake_above.threshold.toFixed(3)}, which ${percent(model.fake_above.error_rate)} of ${model.fake_above.faces.toLocaleString("en")} real faces reached; ` +
    `real below ${model.real_below.threshold.toFixed(3)}, where ${percent(model.real_below.error_rate)} of ${model.real_below.faces.toLocaleString("en")} fakes lay. ` +
    "Forgeries of other kinds, and other pictures, may be judged much worse." +
    (model.terms ? ` Terms: ${model.terms}` : "");
  if (model.doubt) complain(`This detector is unsure of every face: ${model.doubt}.`);
}

const isClip = (file) => file.type.startsWith("video/") || /\.(mp4|m4v|mov|3gp|webm|mkv|avi)$/i.test(file.name);

async function judgeAll(files) {
  if (state.busy) {
    complain("Still judging. Wait, or cancel, and then give the next ones.");
    return;
  }
  state.busy = true;
  $("messages").replaceChildren();
  const list = [...files];
  for (const [at, file] of list.entries()) {
    say(`Judging ${list.length > 1 ? `${at + 1} of ${list.length}: ` : ""}${file.name} …`);
    try {
      await judgeFile(file, "auto");
    } catch (error) {
      if (error.name === "AbortError") {
        say("Cancelled.");
        break;
      }
      complain(`${file.name}: ${error.message}`);
      say("");
    }
  }
  state.busy = false;
  endProgress();
}

async function judgeFile(file, faces) {
  if (!state.model) await describe();
  const clip = isClip(file);
  const most = clip ? state.model.limits.clip_bytes : state.model.limits.file_bytes;
  if (!file.size) throw new Error("The file is empty.");
  if (file.size > most) throw new Error(`Too large: ${Math.ceil(file.size / 2 ** 20)} MB, at most ${Math.round(most / 2 ** 20)} MB are taken. Send a smaller copy.`);
  const wishes = new URLSearchParams({ faces, prevalence: prevalence(), stability: $("stability").checked });
  const form = new FormData();
  form.append("file", file, file.name);
  const stop = new AbortController();
  startProgress(() => stop.abort());
  const verdict = clip ? await judgeClip(form, wishes, stop.signal) : (await ask(`/v1/detect?${wishes}`, { method: "POST", body: form, signal: stop.signal }))[0];
  if (verdict.kind === null) {
    throw new Error(`this is no ${clip ? "clip" : "picture"} that can be read (${verdict.reason}). What is read here: ${state.model.limits.formats.join(", ")}; MP4, MOV, WebM.`);
  }
  const url = URL.createObjectURL(file);
  const item = { name: file.name, url, verdict, file, faces, heat: false, thumb: thumbOf(url, verdict) };
  state.past.unshift(item);
  show(item);
}

async function judgeClip(form, wishes, signal) {
  let job = await ask(`/v1/detect/video?${wishes}`, { method: "POST", body: form, signal });
  const path = `/v1/jobs/${job.id}`;
  try {
    while (job.state === "waiting" || job.state === "judging") {
      await new Promise((done) => setTimeout(done, 400));
      signal.throwIfAborted();
      job = await ask(path, { signal });
      if (job.planned) {
        $("bar").max = job.planned;
        $("bar").value = job.done;
      }
    }
  } finally {
    await ask(path, { method: "DELETE" }).catch(() => {});
  }
  if (job.state === "failed") throw new Error(job.detail);
  return job.verdict;
}

function startProgress(cancel) {
  $("bar").removeAttribute("value");
  $("progress").hidden = false;
  $("cancel").onclick = cancel;
}

function endProgress() {
  $("progress").hidden = true;
}

// -- showing --

function show(item) {
  state.shown = item;
  const { verdict } = item;
  const picture = verdict.kind === "photo" ? pictureOf(item) : clipOf(item);
  const said = el("div", { className: "said", id: "said" });
  $("result").replaceChildren(
    el("div", { className: "shown" }, picture, el("p", { className: "name" }, `${item.name} · ${verdict.width} × ${verdict.height} px`), heatOf(item)),
    said,
    el("div", { id: "words" }),
  );
  $("result").hidden = false;
  drawHeat(item);
  refresh();
  say(`Judged ${item.name}.`);
  $("result-title").focus({ preventScroll: true }); // is read out
  const { top } = $("result").getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) $("result").scrollIntoView({ block: "start" });
}

// Everything that depends on the slider; called while it moves.
function refresh() {
  const share = prevalence();
  $("prevalence-says").textContent = oneIn(share);
  $("prevalence").setAttribute("aria-valuetext", `${oneIn(share)} is fake`);
  if (!state.shown || !state.model) return;
  const bands = bandsAt(share, state.model);
  renderPast(bands);
  const { verdict } = state.shown;
  const parts = partsOf(verdict);
  const judged = parts.map((part) => judgePart(part, bands, state.model));
  const whole = judgeWhole(judged);
  const focused = document.activeElement ? document.activeElement.id : "";
  const opened = $("json") ? $("json").open : false;
  const cards = parts.flatMap((part, at) => (part.score === null ? [] : [cardOf(part, judged[at], bands, verdict)]));
  const left = parts.filter((part) => part.score === null);
  $("said").replaceChildren(
    bannerOf(whole, judged, verdict),
    provenanceOf(verdict.provenance),
    ...cards,
    left.length ? unjudgedOf(left, verdict) : "",
    jsonOf(verdict, opened),
  );
  $("words").replaceChildren(wordsOf(whole));
  if (state.shown.whole && state.shown.whole !== whole) say(`Where ${oneIn(share)} is fake: ${WORDS[whole].toLowerCase()}.`);
  state.shown.whole = whole;
  parts.forEach((part, at) => markBox(part, judged[at].answer));
  if (focused && $(focused) && document.activeElement.id !== focused) $(focused).focus({ preventScroll: true });
}

const partsOf = (verdict) => (verdict.kind === "video" ? verdict.people : verdict.faces);

function bannerOf(whole, judged, verdict) {
  const what = verdict.kind === "video" ? ["person", "people"] : ["face", "faces"];
  const counts = Object.keys(WORDS)
    .map((word) => [word, judged.filter((one) => one.answer === word).length])
    .filter(([, count]) => count);
  const title = { fake: "Looks fake", real: "No sign of forgery", unsure: "Unsure", not_applicable: "Could not be judged" }[whole];
  let line = `${plural(judged.length, ...what)}: ${counts.map(([word, count]) => `${count} ${WORDS[word].toLowerCase()}`).join(", ")}.`;
  if (!judged.length) line = verdict.kind === "video" ? "No face was found in the clip." : "No face was found in this picture.";
  const banner = el("div", { className: `verdict ${whole}` }, el("h2", { id: "result-title", tabIndex: -1 }, title), el("p", {}, line));
  for (const note of verdict.notes) banner.append(el("p", { className: "small" }, `${note[0].toUpperCase()}${note.slice(1)}.`));
  if (!judged.length && verdict.kind === "photo") {
    const again = () => judgeAgain(state.shown);
    banner.append(el("div", {}, el("button", { type: "button", id: "whole", onclick: again }, "Judge the whole picture as one face")));
  }
  return banner;
}

const CREDENTIALS = { absent: "None in this file", valid: "Signed, and unchanged since", invalid: "They do not hold", unreadable: "They cannot be read" };

// What the file says of its origin; the verdict does not depend on it.
function provenanceOf(found) {
  if (!found) return "";
  const box = el("section", { className: `card credentials ${found.state}`, "aria-label": "Content credentials" },
    el("div", { className: "row" }, el("h3", {}, "Content credentials"), el("strong", {}, CREDENTIALS[found.state])));
  const line = (text) => box.append(el("p", { className: "small" }, text));
  if (found.state === "absent") line("Most files carry none, so that says nothing.");
  if (found.problems.length) line(`${found.problems.join("; ")}.`.replace(/^./, (first) => first.toUpperCase()));
  if (found.state === "valid" || found.state === "invalid") {
    if (found.says_ai) box.append(el("p", {}, "They say that generative AI made it, or a part of it."));
    const rows = [
      ["Signed by", found.signer ? `${found.signer} (not checked against a list of trusted signers)` : "someone without a name"],
      ["When", found.signed_at || "without a time stamp"],
      ["Written with", found.generator],
      ["What was done", found.actions.join("; ")],
    ];
    box.append(el("dl", {}, ...rows.filter(([, text]) => text).map(([name, text]) => el("div", {}, el("dt", {}, name), el("dd", {}, text)))));
  }
  if (found.state === "invalid") line("Do not rely on what they say.");
  line("What a file says of its own origin is no part of the verdict.");
  return box;
}

async function judgeAgain(item) {
  try {
    await judgeFile(item.file, "none");
    state.past = state.past.filter((one) => one !== item);
    URL.revokeObjectURL(item.url);
    refresh();
  } catch (error) {
    complain(`${item.name}: ${error.message}`);
  }
  endProgress();
}

function cardOf(part, judged, bands, verdict) {
  const video = verdict.kind === "video";
  const card = el(
    "article",
    { className: "card", id: `part-${part.number}`, tabIndex: -1 },
    el("div", { className: "row" }, el("h3", {}, `${video ? "Person" : "Face"} ${part.number}`), el("span", { className: `word ${judged.answer}` }, WORDS[judged.answer])),
  );
  card.onmouseenter = () => light(part.number, true);
  card.onmouseleave = () => light(part.number, false);
  card.append(scaleOf(part, bands));
  const numbers = el("p", { className: "numbers" },
    el("span", {}, "Score ", el("strong", {}, part.score.toFixed(3))),
    el("span", {}, `Chance of fake, where ${oneIn(bands.prevalence)} are `, el("strong", { className: "posterior" }, chanceOf(moved(part.score, bands.prevalence)))),
  );
  card.append(numbers);
  if (judged.why) card.append(el("p", { className: "small" }, judged.why));
  if (part.stability) {
    const { low, high } = part.stability;
    card.append(el("p", { className: "small" }, `Re-saved, shrunk or sent on: ${low.toFixed(3)} to ${high.toFixed(3)}.`));
  }
  if (video) card.append(timelineOf(part, bands, verdict));
  return card;
}

function unjudgedOf(left, verdict) {
  const [one, many] = verdict.kind === "video" ? ["person", "people"] : ["face", "faces"];
  const lines = left.map((part) => el("li", { id: `part-${part.number}`, tabIndex: -1 }, `${one[0].toUpperCase()}${one.slice(1)} ${part.number}: ${part.reason}.`));
  return el("section", { className: "card unjudged" },
    el("h3", {}, `${plural(left.length, one, many)} not judged`),
    el("ul", {}, ...lines),
  );
}

function scaleOf(part, bands) {
  const at = (value) => `${100 * Math.min(Math.max(value, 0), 1)}%`;
  const real = Math.max(bands.realBelow, 0);
  const fake = Math.min(bands.fakeAbove, 1);
  const range = part.stability;
  const label =
    `Score ${part.score.toFixed(3)} of 1. Real below ${bands.realBelow.toFixed(3)}, fake from ${bands.fakeAbove.toFixed(3)}.` +
    (range ? ` After re-saving ${range.low.toFixed(3)} to ${range.high.toFixed(3)}.` : "");
  const scale = el("div", { className: "scale", role: "img", "aria-label": label },
    el("div", { className: "zone real", style: { left: "0", width: at(real) } }),
    el("div", { className: "zone unsure", style: { left: at(real), width: at(fake - real) } }),
    el("div", { className: "zone fake", style: { left: at(fake), width: at(1 - fake) } }),
  );
  if (range) scale.append(el("div", { className: "range", style: { left: at(range.low), width: at(range.high - range.low) } }));
  scale.append(el("div", { className: "mark", style: { left: at(part.score) } }));
  scale.append(el("span", { className: "tick" }, "real"), el("span", { className: "tick", style: { left: "50%", transform: "translateX(-50%)" } }, "unsure between"), el("span", { className: "tick end" }, "fake"));
  return scale;
}

function timelineOf(part, bands, verdict) {
  const end = Math.max(verdict.frames.seconds || 0, 0.1);
  const svg = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const fake = Math.min(bands.fakeAbove, 1);
  const real = Math.max(bands.realBelow, 0);
  const line = svg("svg", { class: "line", viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img",
    "aria-label": `Score over the clip, from ${part.moments[0].seconds.toFixed(1)} to ${part.moments[part.moments.length - 1].seconds.toFixed(1)} s, judged in ${part.judged} frames.` });
  line.append(
    svg("rect", { class: "fake", x: 0, width: 100, y: 0, height: 100 * (1 - fake) }),
    svg("rect", { class: "unsure", x: 0, width: 100, y: 100 * (1 - fake), height: 100 * (fake - real) }),
    svg("rect", { class: "real", x: 0, width: 100, y: 100 * (1 - real), height: 100 * real }),
  );
  let path = "";
  let broken = true;
  for (const one of part.moments) {
    if (one.score === null) { broken = true; continue; }
    path += `${broken ? "M" : "L"}${(100 * one.seconds / end).toFixed(2)} ${(100 - 100 * one.score).toFixed(2)}`;
    if (broken) path += "h.3";
    broken = false;
  }
  line.append(svg("path", { d: path }));
  return el("div", {}, line, el("div", { className: "ends" }, el("span", {}, "0 s"), el("span", {}, `score over the clip, ${part.judged} frames`), el("span", {}, `${end.toFixed(1)} s`)));
}

function pictureOf(item) {
  const { verdict } = item;
  const frame = el("div", { className: "frame" });
  const image = el("img", { src: item.url, alt: `The picture ${item.name}` });
  image.onerror = () => {
    image.remove();
    frame.classList.add("unseen");
    frame.style.aspectRatio = `${verdict.width} / ${verdict.height}`;
    frame.append(el("p", { className: "unseen-says small" }, "This browser cannot show the format. The boxes are where the faces are."));
  };
  frame.append(image);
  const across = (value) => `${(100 * value) / verdict.width}%`;
  const down = (value) => `${(100 * value) / verdict.height}%`;
  for (const face of verdict.faces) {
    if (!face.box) continue;
    const left = Math.max(face.box[0], 0);
    const top = Math.max(face.box[1], 0);
    const right = Math.min(face.box[2], verdict.width);
    const bottom = Math.min(face.box[3], verdict.height);
    const box = el("button", { type: "button", className: "box", id: `box-${face.number}`,
      style: { left: across(left), top: down(top), width: across(right - left), height: down(bottom - top) } }, el("span"));
    box.classList.toggle("low", top < 0.08 * verdict.height);
    box.classList.toggle("right", left > 0.75 * verdict.width);
    box.onclick = () => {
      const card = $(`part-${face.number}`);
      card.focus({ preventScroll: true });
      card.scrollIntoView({ block: "nearest" });
    };
    box.onmouseenter = () => light(face.number, true);
    box.onmouseleave = () => light(face.number, false);
    frame.append(box);
  }
  return frame;
}

function markBox(part, answer) {
  const box = $(`box-${part.number}`);
  if (!box) return;
  box.classList.remove(...Object.keys(WORDS));
  box.classList.add(answer);
  const many = partsOf(state.shown.verdict).length > 12;
  box.firstChild.textContent = many ? `${part.number}` : `${part.number} ${WORDS[answer]}`;
  box.setAttribute("aria-label", `Face ${part.number}: ${WORDS[answer]}. Go to its card.`);
}

// -- where the network looked --

function heatOf(item) {
  if (item.verdict.kind !== "photo" || !item.verdict.faces.some((face) => face.score !== null)) return "";
  return el("div", { className: "heat" },
    el("button", { type: "button", id: "heat", onclick: () => toggleHeat(item) }, "Where the network looked"),
    el("div", { id: "heat-says", hidden: true }));
}

async function toggleHeat(item) {
  if (!item.verdict.explanation) {
    if (state.busy) {
      complain("Still judging. Wait, or cancel, and then ask where the network looked.");
      return;
    }
    state.busy = true;
    say("Covering one part of each face after the other …");
    try {
      item.verdict.explanation = await askWhere(item);
      say("Done: it is drawn over the picture.");
    } catch (error) {
      say(error.name === "AbortError" ? "Cancelled." : "");
      if (error.name !== "AbortError") complain(`${item.name}: ${error.message}`);
    }
    state.busy = false;
    endProgress();
  }
  item.heat = Boolean(item.verdict.explanation) && !item.heat;
  if (item !== state.shown) return;
  drawHeat(item);
  refresh();
}

async function askWhere(item) {
  const stop = new AbortController();
  startProgress(() => stop.abort());
  const form = new FormData();
  form.append("file", item.file, item.name);
  const wishes = new URLSearchParams({ faces: item.faces, explanation: true });
  const [verdict] = await ask(`/v1/detect?${wishes}`, { method: "POST", body: form, signal: stop.signal });
  return verdict.explanation;
}

function drawHeat(item) {
  if (!$("heat")) return;
  $("heat").setAttribute("aria-pressed", String(item.heat));
  $("heat-says").hidden = !item.heat;
  const frame = $("result").querySelector(".frame");
  frame.querySelectorAll(".map").forEach((one) => one.remove());
  if (!item.heat) return;
  const { maps, meaning, left_out: left } = item.verdict.explanation;
  const most = Math.max(...maps.flatMap((one) => one.values.flat().map(Math.abs)));
  frame.append(...maps.map((one) => mapOf(one, most || 1, item.verdict)));
  $("heat-says").replaceChildren(
    el("p", {}, el("strong", {}, meaning)),
    el("p", { className: "key small" }, el("span", { className: "swatch fake" }), "speaks for fake", el("span", { className: "swatch real" }), "speaks for real"),
    el("p", { className: "small" }, `The stronger the colour, the more the answer changes when that place is covered (at most ${most.toFixed(2)} in log-odds). A network may look at the hair and be right.${left ? ` Only the largest ${maps.length} faces were looked at.` : ""}`),
  );
}

// A canvas of a few pixels, which the browser enlarges smoothly; what lies beyond the picture is cut.
function mapOf(found, most, verdict) {
  const side = found.values.length;
  const canvas = el("canvas", { className: "map", width: side, height: side });
  const [left, top, right, bottom] = found.square;
  Object.assign(canvas.style, {
    left: `${(100 * left) / verdict.width}%`, top: `${(100 * top) / verdict.height}%`,
    width: `${(100 * (right - left)) / verdict.width}%`, height: `${(100 * (bottom - top)) / verdict.height}%`,
  });
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(side, side);
  found.values.flat().forEach((value, at) => {
    const [red, green, blue] = value > 0 ? [255, 106, 0] : [0, 136, 255];
    image.data.set([red, green, blue, 200 * Math.min(Math.abs(value) / most, 1)], 4 * at);
  });
  pen.putImageData(image, 0, 0);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Heat map of face ${found.number}: ${["fake", "real"].map((word) => strongest(found.values, word)).filter(Boolean).join(", ") || "no place matters"}.`);
  return canvas;
}

function strongest(values, word) {
  const signed = values.flat().map((value) => (word === "fake" ? value : -value));
  const at = signed.indexOf(Math.max(...signed));
  if (signed[at] <= 0) return "";
  const third = (index) => Math.min(2, Math.floor((3 * index) / values.length));
  const down = ["top", "middle", "bottom"][third(Math.floor(at / values.length))];
  const across = ["left", "centre", "right"][third(at % values.length)];
  return `most for ${word} at the ${down} ${across}`;
}

function light(number, on) {
  for (const id of [`part-${number}`, `box-${number}`]) if ($(id)) $(id).classList.toggle("lit", on);
}

function clipOf(item) {
  const frame = el("div", { className: "frame" });
  const video = el("video", { src: item.url, controls: true, muted: true, playsInline: true });
  video.setAttribute("aria-label", `The clip ${item.name}`);
  video.onerror = () => {
    video.remove();
    frame.classList.add("unseen");
    frame.style.aspectRatio = "16 / 9";
    frame.append(el("p", { className: "unseen-says small" }, "This browser cannot play the format. The clip was judged all the same."));
  };
  frame.append(video);
  return frame;
}

const MEANING = {
  fake: {
    means: (model) => `At least one face looks more like the forgeries this detector knows than ${percent(1 - model.fake_above.error_rate)} of the real faces it was checked on.`,
    not: "It does not prove a forgery, and does not say who made it or why. Retouching, filters and strong compression can look alike.",
    next: ["Ask for the original file, and where it comes from.", "Look for earlier copies with a reverse image search.", "Have a person judge it before you publish or act."],
  },
  real: {
    means: () => "No face here looks like the forgeries this detector knows.",
    not: "It does not prove the picture true. Forgeries of kinds it never saw may pass, and a real face can stand in a false story.",
    next: ["Check source, date and place as you would anyway.", "If much depends on it, ask for the original file and test that."],
  },
  unsure: {
    means: () => "The evidence does not reach: real and fake faces both look like this, or the answer does not survive re-saving.",
    not: "It is no half-proof. Do not quote the score for or against anyone.",
    next: ["Ask for the original file, or a larger copy.", "Ask for other pictures or a clip of the same moment.", "Judge it by other means: source, place, time, witnesses."],
  },
  not_applicable: {
    means: () => "There was nothing that this detector can judge.",
    not: "It says nothing about the picture, neither good nor bad.",
    next: ["Use a larger copy, in which a face is at least 64 pixels wide.", "Turn the picture upright.", "If the picture is only a face, have it judged as a whole."],
  },
};

function wordsOf(whole) {
  const { means, not, next } = MEANING[whole];
  return el("section", { className: "words card", "aria-label": "What this means" },
    el("div", {}, el("h3", {}, "What this means"), el("p", {}, means(state.model))),
    el("div", {}, el("h3", {}, "What it does not mean"), el("p", {}, not)),
    el("div", {}, el("h3", {}, "What to do next"), el("ul", {}, ...next.map((line) => el("li", {}, line)))),
  );
}

function jsonOf(verdict, open) {
  const text = JSON.stringify(verdict, null, 2);
  const copy = el("button", { type: "button", id: "copy" }, "Copy JSON");
  copy.onclick = async () => {
    try {
      await navigator.clipboard.writeText(text);
      say("JSON copied.");
    } catch {
      getSelection().selectAllChildren($("json-text"));
      say("JSON selected: copy it with Ctrl+C.");
    }
  };
  return el("details", { id: "json", open },
    el("summary", { id: "json-summary" }, "JSON, for records and programs"),
    el("p", { className: "small" }, `As the service answered, at a share of fakes of ${oneIn(verdict.bands.prevalence)}.`),
    el("pre", { id: "json-text", tabIndex: 0, "aria-label": "JSON" }, text),
    copy,
  );
}

function thumbOf(url, verdict) {
  if (verdict.kind === "photo") return el("img", { className: "thumb", src: url, alt: "" });
  const video = el("video", { className: "thumb", src: `${url}#t=0.1`, muted: true, tabIndex: -1 });
  video.setAttribute("aria-hidden", "true");
  return video;
}

function renderPast(bands) {
  $("history").hidden = state.past.length < 1;
  $("past").replaceChildren(...state.past.map((item, at) => {
    const whole = judgeWhole(partsOf(item.verdict).map((part) => judgePart(part, bands, state.model)));
    const button = el("button", { type: "button", id: `past-${at}`, onclick: () => show(item) }, item.thumb, el("span", { className: "file" }, item.name), el("span", { className: `word ${whole}` }, WORDS[whole]));
    if (item === state.shown) button.setAttribute("aria-current", "true");
    return el("li", {}, button);
  }));
}

function forget() {
  state.past.forEach((item) => URL.revokeObjectURL(item.url));
  state.past = [];
  state.shown = null;
  $("result").hidden = true;
  $("result").replaceChildren();
  $("history").hidden = true;
  $("past").replaceChildren();
  say("Forgotten.");
  $("pick").focus();
}

// -- ways in --

function listen() {
  $("pick").onclick = () => $("files").click();
  $("files").onchange = () => {
    const files = [...$("files").files];
    $("files").value = "";
    judgeAll(files);
  };
  $("prevalence").oninput = refresh;
  $("forget").onclick = forget;
  addEventListener("dragover", (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) $("drop").classList.remove("over");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    if (event.dataTransfer.files.length) judgeAll(event.dataTransfer.files);
    else complain("Drop the file itself: addresses of pictures elsewhere are not fetched. Save the picture first.");
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData && event.clipboardData.files.length) judgeAll(event.clipboardData.files);
  });
  $("camera").onclick = openCamera;
}

async function openCamera() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1920 } } });
  } catch {
    complain("The camera cannot be used: there is none, or this page may not use it. Allow it in the browser, or choose a file.");
    return;
  }
  const live = $("live");
  const dialog = $("camera-dialog");
  live.srcObject = stream;
  dialog.onclose = () => stream.getTracks().forEach((track) => track.stop());
  $("camera-close").onclick = () => dialog.close();
  $("shoot").onclick = () => {
    const canvas = el("canvas", { width: live.videoWidth, height: live.videoHeight });
    canvas.getContext("2d").drawImage(live, 0, 0);
    dialog.close();
    canvas.toBlob((blob) => judgeAll([new File([blob], "camera.png", { type: "image/png" })]), "image/png");
  };
  dialog.showModal();
}

listen();
refresh();
describe().catch((error) => complain(error.message));
