// Light or dark as the reader chose, before anything is drawn. Loaded in the head, and no module, for that reason.
"use strict";
{
  const KEY = "sdpo-view-theme";
  const root = document.documentElement;
  const kept = (() => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage may be forbidden
    }
  })();
  if (kept === "light" || kept === "dark") root.dataset.theme = kept;

  window.switchTheme = () => {
    const isDark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
    try {
      localStorage.setItem(KEY, root.dataset.theme);
    } catch {
      // then it holds for this visit
    }
    dispatchEvent(new Event("theme"));
  };
}
