// All state of the page is in its URL: the view is the last part of the path, the rest are parameters.

const VIEWS = { "": "overview", flow: "flow", health: "health" };
const PATHS = { overview: "./", flow: "flow", health: "health" };
let changed = () => {};

export function state() {
  const last = location.pathname.split("/").at(-1);
  return { view: VIEWS[last] ?? "overview", parameters: Object.fromEntries(new URLSearchParams(location.search)) };
}

export function link(view, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const query = new URLSearchParams(given).toString();
  return query ? `${PATHS[view]}?${query}` : PATHS[view];
}

// Goes to a view; `replace` adds no step to the history.
export function go(view, parameters, { replace = false } = {}) {
  const to = link(view, parameters);
  if (new URL(to, location.href).href === location.href) return;
  history[replace ? "replaceState" : "pushState"](null, "", to);
  changed({ moved: true });
}

// Changes some parameters of this view; null removes one.
export function set(parameters, options) {
  const now = state();
  go(now.view, { ...now.parameters, ...parameters }, options);
}

export function start(onChange) {
  changed = onChange;
  addEventListener("popstate", () => changed({ moved: true, back: true }));
  document.addEventListener("click", (event) => {
    const anchor = event.target.closest?.("a[data-go]");
    if (!anchor || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    if (anchor.href === location.href) return;
    history.pushState(null, "", anchor.href);
    changed({ moved: true, top: true });
  });
}
