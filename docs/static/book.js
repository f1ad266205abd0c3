// What is wider than its place scrolls inside, and can be reached by keyboard: here, once everything has its size.
function reach() {
  for (const box of document.querySelectorAll("pre, div.math, article p, .table-wrapper, .output.text_html, iframe")) {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
    else if (box.tabIndex === 0 && box.tagName !== "IFRAME") box.removeAttribute("tabindex");
  }
}
window.addEventListener("load", () => setTimeout(reach, 300));
window.addEventListener("resize", reach);
document.addEventListener("toggle", reach, true);
