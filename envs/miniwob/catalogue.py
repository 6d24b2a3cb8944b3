"""The pages of MiniWoB++ 1.1: those that are used by default, and the others."""

from __future__ import annotations

DEFAULT_PAGES: tuple[str, ...] = (
    *("ascending-numbers", "button-delay", "buy-ticket", "choose-date", "choose-date-easy"),
    *("choose-date-medium", "choose-date-nodelay", "choose-list", "click-button"),
    *("click-button-sequence", "click-checkboxes", "click-checkboxes-large"),
    *("click-checkboxes-soft", "click-checkboxes-transfer", "click-collapsible"),
    *("click-collapsible-2", "click-collapsible-2-nodelay", "click-collapsible-nodelay"),
    *("click-color", "click-dialog", "click-dialog-2", "click-link", "click-menu"),
    *("click-menu-2", "click-option", "click-scroll-list", "click-shades", "click-shape"),
    *("click-tab", "click-tab-2", "click-tab-2-easy", "click-tab-2-hard", "click-tab-2-medium"),
    *("click-test", "click-test-2", "click-test-transfer", "click-widget", "copy-paste"),
    *("copy-paste-2", "count-shape", "drag-box", "drag-circle", "drag-items", "drag-shapes"),
    *("drag-shapes-2", "drag-single-shape", "drag-sort-numbers", "email-inbox"),
    *("email-inbox-delete", "email-inbox-forward", "email-inbox-forward-nl"),
    *("email-inbox-forward-nl-turk", "email-inbox-important", "email-inbox-nl-turk"),
    *("email-inbox-noscroll", "email-inbox-reply", "email-inbox-star-reply", "enter-date"),
    *("enter-password", "enter-text", "enter-text-2", "enter-text-dynamic", "enter-time"),
    *("find-word", "focus-text", "focus-text-2", "form-sequence", "form-sequence-2"),
    *("form-sequence-3", "generate-number", "grid-coordinate", "guess-number", "highlight-text"),
    *("highlight-text-2", "identify-shape", "login-user", "login-user-popup", "multi-layouts"),
    *("multi-orderings", "navigate-tree", "odd-or-even", "order-food", "phone-book"),
    *("read-table", "read-table-2", "scroll-text", "search-engine", "sign-agreement"),
    *("simple-algebra", "simple-arithmetic", "social-media", "social-media-all"),
    *("social-media-some", "stock-market", "terminal", "text-transform", "unicode-test"),
    *("use-autocomplete", "use-autocomplete-nodelay", "use-slider", "use-slider-2"),
    *("use-spinner", "visual-addition"),
)
"""Pages that can be solved from their text, as the experts show (`experts.EXPERTS`)."""

OTHER_PAGES: tuple[str, ...] = (
    *("bisect-angle", "book-flight-nodelay", "book-flight", "chase-circle", "circle-center"),
    *("click-pie-nodelay", "click-pie", "count-sides", "daily-calendar", "drag-cube"),
    *("drag-items-grid", "draw-circle", "draw-line", "find-greatest", "find-midpoint"),
    *("hot-cold", "hover-shape", "moving-items", "number-checkboxes", "resize-textarea"),
    *("right-angle", "scroll-text-2", "simon-says", "text-editor", "tic-tac-toe"),
    *("use-colorwheel-2", "use-colorwheel"),
)
"""Pages that need pictures, quick hands or luck, or that never give a whole point."""

PAGES = frozenset((*DEFAULT_PAGES, *OTHER_PAGES))
"""Every page of the package."""
