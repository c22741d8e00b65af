// Pictures that change their places are seen to move, unless the visitor's system asks for stillness.

const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Call `change`, and let the elements of `list` glide from where they were. */
export function rearrange(list, change) {
  const before = new Map([...list.children].map((element) => [element, element.getBoundingClientRect()]));
  change();
  if (still.matches) return;
  for (const element of list.children) {
    const from = before.get(element);
    const to = element.getBoundingClientRect();
    const frames = from
      ? [{ transform: `translate(${from.left - to.left}px, ${from.top - to.top}px)` }, { transform: "none" }]
      : [{ opacity: 0, transform: "translateY(2rem)" }, { opacity: 1, transform: "none" }];
    element.animate(frames, { duration: 600, easing: "cubic-bezier(.2, .7, .2, 1)" });
  }
}
