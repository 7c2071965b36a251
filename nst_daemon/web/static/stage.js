// The picture of the viewer: content and result on top of each other with a divider, zoom and pan.
import { make } from "./dom.js";
import { t } from "./texts.js";

const STEP = 1.25, MOST = 32; // of one zoom step; the largest zoom
const LARGEST_FIT = 4; // small pictures are enlarged at most by this to fill the window
const SWIPE = 60; // pixels
const SAME_SHAPE = 0.02; // sides whose ratios differ less are of one picture
const KEY_PAN = 80; // pixels

export class Stage {
  /** swipe(step) is called with 1 or -1; zoomed() after each change of the zoom. */
  constructor({ swipe, zoomed }) {
    Object.assign(this, { swipe, zoomed, pointers: new Map(), comparing: true });
    this.content = make("img", { class: "viewer-image", draggable: false });
    this.result = make("img", { class: "viewer-image", draggable: false });
    this.contentLayer = make("div", { class: "viewer-layer content" }, this.content);
    this.divider = make("div", { class: "viewer-divider", "aria-hidden": "true" }, make("span", {}));
    this.message = make("p", { class: "viewer-message", hidden: true });
    this.element = make("div", { class: "viewer-stage" }, make("div", { class: "viewer-layer" }, this.result), this.contentLayer, this.divider, this.message);
    this.slider = make("input", { type: "range", id: "viewer-slider", min: 0, max: 100, step: 1, value: 50, "aria-label": t("viewer.slider"), on: { input: () => this.slide() } });
    this.listen();
    this.observer = new ResizeObserver(() => this.place());
    this.observer.observe(this.element);
    this.reset();
  }

  end() { this.observer.disconnect(); }

  listen() {
    const on = (name, act, options) => this.element.addEventListener(name, act, options);
    on("wheel", (event) => { event.preventDefault(); this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event); }, { passive: false });
    on("dblclick", (event) => this.scale > 1.01 ? this.fit() : this.zoom(Math.max(2.5, this.originalScale()) / this.scale, event));
    on("pointerdown", (event) => this.down(event));
    on("pointermove", (event) => this.moved(event));
    for (const name of ["pointerup", "pointercancel"]) on(name, (event) => this.up(event));
  }

  reset() {
    Object.assign(this, { scale: 1, x: 0, y: 0, wide: 0, high: 0, originals: null, hasContent: false, turn: null });
    this.pointers.clear();
  }

  /**
   * Show a picture. Addresses: `result` and `content` (null: there is none) in view size, `original` in full size.
   * Returns a promise of whether the result could be loaded.
   */
  async show({ result, content, original, name }) {
    this.reset();
    const turn = this.turn = {};
    this.say("");
    this.element.classList.add("loading");
    Object.assign(this.result, { alt: t("job.result_of", { name }) });
    Object.assign(this.content, { alt: t("job.content_of", { name }) });
    this.content.removeAttribute("src");
    const [found, beside] = await Promise.all([loads(this.result, result), content ? loads(this.content, content) : false]);
    if (turn !== this.turn) return false;
    this.element.classList.remove("loading");
    Object.assign(this, { hasContent: beside && found, original });
    [this.wide, this.high] = [this.result.naturalWidth, this.result.naturalHeight];
    if (!found) this.say(t("viewer.no_picture"));
    this.place();
    return found;
  }

  /** Show a text instead of a picture. */
  say(text) {
    this.message.textContent = text;
    this.message.hidden = !text;
    for (const image of [this.result, this.content]) image.hidden = Boolean(text);
    if (text) this.element.classList.remove("loading");
  }

  // Comparing

  compare(on) {
    this.comparing = on;
    this.place();
  }

  slide() {
    this.slider.setAttribute("aria-valuetext", t("viewer.slider_value", { count: Number(this.slider.value) }));
    this.place();
  }

  /** The visible part of the picture, from left to right, in pixels of the stage. */
  visible() {
    const stage = this.element.clientWidth, shown = this.fitted()[0] * this.scale;
    const left = Math.max(0, stage / 2 + this.x - shown / 2), right = Math.min(stage, stage / 2 + this.x + shown / 2);
    return [left, Math.max(left, right)];
  }

  slideTo(clientX) {
    const [left, right] = this.visible(), x = clientX - this.element.getBoundingClientRect().left;
    this.slider.value = Math.round(100 * (x - left) / (right - left || 1));
    this.slide();
  }

  // Zooming

  /** Width and height of the picture at zoom 1, in CSS pixels. */
  fitted() {
    if (!this.wide) return [0, 0];
    const factor = Math.min(this.element.clientWidth / this.wide, this.element.clientHeight / this.high, LARGEST_FIT);
    return [this.wide * factor, this.high * factor];
  }

  /** The zoom at which one pixel of the picture is one pixel of the screen. */
  originalScale() {
    const width = this.originals?.width || this.wide, [fitted] = this.fitted();
    return fitted ? width / devicePixelRatio / fitted : 1;
  }

  /** Zoom by a factor, so that the point below the pointer stays; without a pointer, the centre of the stage. */
  zoom(factor, pointer) {
    const box = this.element.getBoundingClientRect();
    const px = pointer ? pointer.clientX - box.left - box.width / 2 : 0, py = pointer ? pointer.clientY - box.top - box.height / 2 : 0;
    const scale = Math.min(MOST, Math.max(Math.min(1, this.originalScale()), this.scale * factor)), ratio = scale / this.scale;
    Object.assign(this, { scale, x: px - (px - this.x) * ratio, y: py - (py - this.y) * ratio });
    if (scale > 1) this.sharpen();
    this.place();
    this.zoomed();
  }

  zoomIn() { this.zoom(STEP); }
  zoomOut() { this.zoom(1 / STEP); }
  fit() { this.zoom(1 / this.scale); }
  full() { this.zoom(this.originalScale() / this.scale); }
  pan(right, down) {
    this.x -= right * KEY_PAN;
    this.y -= down * KEY_PAN;
    this.place();
  }

  get canPan() { return this.scale > 1.01; }
  /** The zoom as a part of the original size. */
  get zoomPart() { return this.scale / this.originalScale(); }

  /** Load the picture in full size, once. Browsers cannot show some formats: then the reduced one stays. */
  sharpen() {
    if (this.originals || !this.original) return;
    const turn = this.turn, image = new Image();
    this.originals = { width: 0 };
    image.addEventListener("load", () => {
      if (turn !== this.turn) return;
      this.originals = { width: image.naturalWidth };
      this.result.src = image.src;
      this.zoomed();
    });
    image.src = this.original;
  }

  /** Write size, position and divider to the style. */
  place() {
    const [width, height] = this.fitted(), stage = this.element;
    const limitX = Math.max(0, (width * this.scale - stage.clientWidth) / 2), limitY = Math.max(0, (height * this.scale - stage.clientHeight) / 2);
    this.x = Math.min(limitX, Math.max(-limitX, this.x));
    this.y = Math.min(limitY, Math.max(-limitY, this.y));
    const [left, right] = this.visible(), at = left + (right - left) * this.slider.value / 100;
    const values = { "--width": `${width}px`, "--height": `${height}px`, "--x": `${this.x}px`, "--y": `${this.y}px`, "--scale": this.scale, "--at": `${at}px`, "--edge-y": `${Math.max(0, (stage.clientHeight - height * this.scale) / 2)}px` };
    for (const [name, value] of Object.entries(values)) stage.style.setProperty(name, value);
    const shown = this.comparing && this.hasContent;
    this.contentLayer.hidden = this.divider.hidden = !shown;
    const ratio = this.content.naturalWidth / this.content.naturalHeight * this.high / this.wide;
    this.content.classList.toggle("whole", !(Math.abs(ratio - 1) < SAME_SHAPE));
    stage.classList.toggle("pannable", this.canPan);
  }

  // Pointers

  down(event) {
    if (event.button) return;
    this.element.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    this.start = event;
    const onDivider = this.divider.contains(event.target), drags = event.pointerType === "mouse" && !this.canPan;
    this.mode = this.pointers.size === 2 ? "pinch" : (onDivider || drags) && !this.divider.hidden ? "slide" : this.canPan ? "pan" : "swipe";
    if (this.mode === "slide" && onDivider) event.preventDefault();
  }

  moved(event) {
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    this.pointers.set(event.pointerId, event);
    if (this.mode === "slide") this.slideTo(event.clientX);
    else if (this.mode === "pan") {
      this.x += event.clientX - last.clientX;
      this.y += event.clientY - last.clientY;
      this.place();
    } else if (this.mode === "pinch") this.pinch(event, last);
  }

  pinch(event, last) {
    const other = [...this.pointers.values()].find((one) => one.pointerId !== event.pointerId);
    if (!other) return;
    const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
    const middle = { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 };
    this.x += (event.clientX - last.clientX) / 2;
    this.y += (event.clientY - last.clientY) / 2;
    this.zoom(apart(event) / apart(last), middle);
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    const across = event.clientX - this.start.clientX, down = event.clientY - this.start.clientY;
    if (this.mode === "swipe" && event.type === "pointerup" && event.pointerType !== "mouse" && Math.abs(across) > SWIPE && Math.abs(across) > 2 * Math.abs(down)) this.swipe(across < 0 ? 1 : -1);
    if (this.mode === "pinch") this.mode = this.pointers.size ? "pan" : "";
  }
}

/** Load an address into an image; a promise of whether that was possible. */
const loads = (image, src) => new Promise((resolve) => {
  image.onload = () => resolve(true);
  image.onerror = () => resolve(false);
  image.src = src;
});
