
const dialog = document.querySelector("dialog");
let gallery = [], shown = 0;
const show = (index) => {
  shown = (index + gallery.length) % gallery.length;
  const picture = gallery[shown];
  dialog.querySelector("img").src = picture.src;
  dialog.querySelector("img").alt = picture.alt;
  dialog.querySelector("p").textContent = picture.closest("figure").querySelector("figcaption").textContent;
};
for (const list of document.querySelectorAll("ol, ul")) {
  const pictures = [...list.querySelectorAll("img.zoom")];
  for (const [index, picture] of pictures.entries()) {
    const open = () => { gallery = pictures; show(index); dialog.showModal(); };
    picture.tabIndex = 0;
    picture.setAttribute("role", "button");
    picture.setAttribute("aria-haspopup", "dialog");
    picture.addEventListener("click", open);
    picture.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); }
    });
  }
}
const move = (by) => { if (by) show(shown + by); else dialog.close(); };
for (const button of dialog.querySelectorAll("button")) button.addEventListener("click", () => move(Number(button.dataset.move)));
dialog.querySelector("img").addEventListener("click", () => move(0));
dialog.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by) { event.preventDefault(); move(by); }
});

const compare = document.getElementById("compare");
if (compare) {
  const rows = [...document.querySelectorAll(".strip")].map((strip) => [...strip.querySelectorAll("img.zoom")]);
  const row = document.getElementById("compare-row");
  const sides = ["left", "right"].map((name) => ({
    range: document.getElementById(`compare-${name}`),
    image: compare.querySelector(`img[data-side=${name}]`),
    output: compare.querySelector(`output[for=compare-${name}]`),
  }));
  const draw = () => {
    const pictures = rows[row ? row.value : 0];
    for (const { range, image, output } of sides) {
      range.max = pictures.length - 1;
      const picture = pictures[range.value];
      image.src = picture.src;
      image.alt = picture.alt;
      output.textContent = picture.closest("figure").querySelector("figcaption").textContent;
      range.setAttribute("aria-valuetext", output.textContent);
    }
  };
  const best = rows[0].findIndex((picture) => picture.closest("li.best"));
  sides[1].range.value = best > 0 ? best : rows[0].length - 1;
  for (const control of [row, ...sides.map((side) => side.range)]) control?.addEventListener("input", draw);
  draw();
  compare.hidden = false;
}
