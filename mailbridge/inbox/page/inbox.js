// The page of the inbox: keeps the list up to date and shows one mail. What a mail says is only ever set as
// text; its html is shown in a frame that may neither run scripts nor load anything from elsewhere.
"use strict";

const $ = (id) => document.getElementById(id);
const seen = new Set();
let version = 0;
let shown = null; // the mail that is open
let view = "html";
let listing = 0; // counts the requests for the list: only the answer to the last one counts

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

async function ask(path, options) {
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer;
}

function moment(text) {
  const when = new Date(text);
  const isToday = when.toDateString() === new Date().toDateString();
  return isToday
    ? when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : when.toLocaleDateString([], { day: "numeric", month: "short" });
}

function size(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function files(count) {
  return count === 1 ? "1 file" : `${count} files`;
}

// Of "Maja <maja@example.org>" the name.
function name(address) {
  return address.replace(/^"?([^"<]*[^"<\s])"?\s*<.*>.*$/, "$1");
}

// ---- the list

async function refresh() {
  const turn = ++listing;
  const search = $("search").value.trim();
  const found = await (await ask(`/api/messages?search=${encodeURIComponent(search)}`)).json();
  if (turn !== listing) return;
  version = found.version;
  $("count").textContent = search ? `${found.matching} of ${found.total}` : `${found.total}`;
  document.title = found.total ? `(${found.total}) Inbox` : "Inbox";
  $("list").replaceChildren(...found.messages.map(row));
  $("empty").hidden = found.messages.length > 0;
  $("empty").textContent = search
    ? "No message matches."
    : "No mail yet.\nWhat is sent to this server appears here.";
  $("clear").disabled = found.total === 0;
  const isGone = shown && !search && !found.messages.some((mail) => mail.id === shown.id);
  if (isGone && found.matching <= found.messages.length) location.hash = "";
}

function row(mail) {
  const isOpen = shown !== null && shown.id === mail.id;
  const link = element(
    "a",
    { href: `#${mail.id}`, "aria-current": isOpen ? "true" : undefined, class: seen.has(mail.id) ? "" : "new" },
    element(
      "div",
      { class: "row" },
      element("span", { title: mail.from }, name(mail.from)),
      element("time", { datetime: mail.received_at }, moment(mail.received_at)),
    ),
    element(
      "div",
      { class: "row" },
      element("span", { class: "subject" }, mail.subject || "(no subject)"),
      ...(mail.attachments ? [element("span", { class: "tag" }, files(mail.attachments))] : []),
    ),
    element("div", { class: "preview" }, mail.preview || `to ${mail.envelope.recipients.join(", ")}`),
  );
  return element("li", {}, link);
}

async function follow() {
  for (;;) {
    try {
      const answer = await (await ask(`/api/changes?version=${version}&timeout=25`)).json();
      if ($("state").textContent || answer.version !== version) await refresh();
      $("state").textContent = "";
    } catch {
      $("state").textContent = "The server does not answer";
      await new Promise((done) => setTimeout(done, 2000));
    }
  }
}

// ---- one mail

async function open() {
  const id = location.hash.slice(1);
  if (!id) return close();
  let mail;
  try {
    mail = await (await ask(`/api/messages/${encodeURIComponent(id)}`)).json();
  } catch {
    return close();
  }
  if (location.hash.slice(1) !== id) return;
  shown = mail;
  seen.add(id);
  document.body.classList.add("reading");
  $("mail").hidden = false;
  $("nothing").hidden = true;
  $("subject").textContent = mail.subject || "(no subject)";
  $("facts").replaceChildren(...facts(mail));
  $("files").replaceChildren(...mail.parts.map(file));
  $("files").hidden = mail.parts.length === 0;
  $("left-out").textContent = mail.left_out.join(" ");
  $("left-out").hidden = mail.left_out.length === 0;
  $("download").href = `${mail.source_url}?download`;
  if (view === "html" && !mail.html) view = "text";
  if (view === "text" && !mail.text && mail.html) view = "html";
  show(view);
  await refresh();
}

function close() {
  shown = null;
  document.body.classList.remove("reading");
  $("mail").hidden = true;
  $("nothing").hidden = false;
  for (const link of $("list").querySelectorAll("[aria-current]")) link.removeAttribute("aria-current");
}

function facts(mail) {
  const when = new Date(mail.received_at).toLocaleString();
  const how = [mail.client && `from ${mail.client}`, mail.is_encrypted && "over TLS", mail.user && `as ${mail.user}`];
  const rows = [
    ["From", mail.from],
    ["To", mail.to],
    ["Cc", mail.cc],
    ["Envelope", `<${mail.envelope.sender}> to ${mail.envelope.recipients.join(", ")}`],
    ["Received", [when, ...how.filter(Boolean), size(mail.size)].join(", ")],
  ];
  return rows
    .filter(([, value]) => value)
    .flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
}

function file(part) {
  const link = element("a", { href: part.url, download: part.filename, title: part.content_type });
  link.append(`${part.filename} (${size(part.size)})`);
  return element("li", {}, link);
}

function show(wanted) {
  view = wanted;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    tab.setAttribute("aria-selected", String(tab.dataset.view === view));
    tab.disabled = (tab.dataset.view === "html" && !shown.html) || (tab.dataset.view === "text" && !shown.text);
  }
  $("remote").hidden = !(view === "html" && shown.has_remote_content);
  $("view").replaceChildren(views[view](shown));
}

const views = {
  html: (mail) => frame(mail, false),
  text: (mail) => element("pre", { class: "text" }, ...linked(mail.text)),
  headers: (mail) =>
    element("table", {}, ...mail.headers.map(([name, value]) =>
      element("tr", {}, element("th", {}, name), element("td", {}, value)))),
  source: (mail) => {
    const place = element("pre", { class: "source" }, "…");
    ask(mail.source_url).then((answer) => answer.text()).then((text) => { place.textContent = text; });
    return place;
  },
};

function frame(mail, remote) {
  const made = element("iframe", {
    title: "The mail",
    sandbox: "allow-popups allow-popups-to-escape-sandbox",
    referrerpolicy: "no-referrer",
  });
  made.src = `/api/messages/${encodeURIComponent(mail.id)}/html${remote ? "?remote=1" : ""}`;
  return made;
}

// Addresses in a text become links, and nothing else does. Where there are too many for the browser, none.
function linked(text) {
  const pieces = text.split(/(https?:\/\/[^\s<>"]+[^\s<>".,;:!?)\]'])/);
  if (pieces.length > 10000) return [text];
  return pieces.map((piece, index) =>
    index % 2
      ? element("a", { href: piece, target: "_blank", rel: "noopener noreferrer" }, piece)
      : piece);
}

// ---- what a person does

let typing;
$("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(refresh, 150);
});
$("clear").addEventListener("click", async () => {
  if (!confirm("Delete all messages?")) return;
  await ask("/api/messages", { method: "DELETE" });
  location.hash = "";
});
$("delete").addEventListener("click", async () => {
  await ask(`/api/messages/${encodeURIComponent(shown.id)}`, { method: "DELETE" });
  location.hash = "";
});
$("back").addEventListener("click", () => { location.hash = ""; });
$("load").addEventListener("click", () => {
  $("remote").hidden = true;
  $("view").replaceChildren(frame(shown, true));
});
for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => show(tab.dataset.view));
}
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { j: 1, k: -1 }[event.key];
  if (!step) return;
  const links = [...$("list").querySelectorAll("a")];
  const next = links[links.findIndex((link) => link.hasAttribute("aria-current")) + step];
  if (next) next.click();
});
window.addEventListener("hashchange", open);

refresh().then(open).finally(follow);
