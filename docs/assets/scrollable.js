// What scrolls sideways can be reached by the keyboard: the theme wraps wide tables after the page is loaded.
new MutationObserver(() =>
  document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])").forEach((wide) => {
    wide.tabIndex = 0;
  }),
).observe(document.documentElement, { childList: true, subtree: true });
