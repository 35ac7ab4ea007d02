// A volume in three planes and 3D, drawn by NiiVue (vendor/niivue.js).

let library;
const load = () => (library ||= import("../vendor/niivue.js"));

const PLANES = { axial: "AXIAL", coronal: "CORONAL", sagittal: "SAGITTAL", all: "MULTIPLANAR", "3d": "RENDER" };

const key = (lut) => {
  const rows = { R: [], G: [], B: [], A: [], I: [] };
  for (let value = 0; value < 256; value++) {
    rows.R.push(lut[4 * value]);
    rows.G.push(lut[4 * value + 1]);
    rows.B.push(lut[4 * value + 2]);
    rows.A.push(lut[4 * value + 3]);
    rows.I.push(value);
  }
  return rows;
};

/** Whether drawing is done by the processor, where 3D takes seconds a picture. */
function slow(gl) {
  const more = gl.getExtension("WEBGL_debug_renderer_info");
  return /swiftshader|llvmpipe|software/i.test(more ? gl.getParameter(more.UNMASKED_RENDERER_WEBGL) : "");
}

export class VolumeView {
  constructor(host, report) {
    this.host = host;
    this.report = report;
    this.layers = new Map();
    this.screen = document.createElement("canvas");
    this.screen.className = "screen";
    this.screen.tabIndex = 0;
    this.screen.setAttribute("role", "img");
    host.replaceChildren(this.screen);
  }

  async open(info, buffer, name, shades) {
    this.screen.setAttribute("aria-label",
      `Volume ${name}. Arrow keys and page keys move the cross hair; dragging with the right button changes the window.`);
    this.info = info;
    const probe = document.createElement("canvas").getContext("webgl2");
    if (!probe) {
      throw new Error("This browser has no WebGL 2, which volumes need. Turn on hardware acceleration, or use another browser.");
    }
    const { Niivue, NVImage, SLICE_TYPE, SHOW_RENDER } = await load();
    this.NVImage = NVImage;
    this.planes = SLICE_TYPE;
    this.niivue = new Niivue({
      dragAndDropEnabled: false, logLevel: "error", crosshairColor: [0.21, 0.82, 1, 0.8],
      crosshairWidth: 0.3, crosshairWidthUnit: "percent", isRadiologicalConvention: true, fontColor: [0.9, 0.9, 0.9, 1],
      multiplanarShowRender: slow(probe) ? SHOW_RENDER.NEVER : SHOW_RENDER.ALWAYS, multiplanarPadPixels: 4, show3Dcrosshair: true, loadingText: "",
      fontMinPx: 12, viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "",
    });
    probe.getExtension("WEBGL_lose_context")?.loseContext(); // a browser allows only a few
    await this.niivue.attachToCanvas(this.screen);
    const image = await NVImage.new(buffer, "scan.nii", "gray", 1, null, ...shades);
    this.niivue.addVolume(image);
    this.niivue.onLocationChange = (place) => this.located(place);
    this.screen.addEventListener("keydown", (event) => this.key(event));
    this.setPlanes("all");
    this.setWindow(...shades);
  }

  close() {
    this.niivue?.cleanup();
    this.niivue?.gl?.getExtension("WEBGL_lose_context")?.loseContext();
    this.host.replaceChildren();
  }

  setPlanes(name) {
    this.niivue.setSliceType(this.planes[PLANES[name]]);
  }

  setSmooth(smooth) {
    this.niivue.setInterpolation(!smooth);
  }

  setWindow(low, high) {
    const [image] = this.niivue.volumes;
    image.cal_min = low;
    image.cal_max = high;
    this.niivue.updateGLVolume();
  }

  async setLayer(id, change) {
    let layer = this.layers.get(id);
    if (change.buffer) {
      if (layer) this.removeLayer(id);
      const image = await this.NVImage.new(change.buffer, `${id}.nii`, "gray", change.opacity);
      layer = { image, opacity: change.opacity, visible: true, kind: change.kind };
      this.layers.set(id, layer);
      image.colormapLabel = null;
      if (change.kind === "map") {
        this.niivue.addColormap("radiffuse", heat(change.lut));
        image.colormap = "radiffuse";
        [image.cal_min, image.cal_max] = change.span;
      } else {
        image.setColormapLabel(key(change.lut));
      }
      this.niivue.addVolume(image);
    } else if (change.lut && layer.kind !== "map") {
      layer.image.setColormapLabel(key(change.lut));
    }
    if ("opacity" in change) layer.opacity = change.opacity;
    if ("visible" in change) layer.visible = change.visible;
    layer.image.opacity = layer.visible ? layer.opacity : 0;
    if ("step" in change && layer.image.nFrame4D > 1) layer.image.frame4D = change.step;
    this.niivue.updateGLVolume();
  }

  removeLayer(id) {
    const layer = this.layers.get(id);
    if (layer) this.niivue.removeVolume(layer.image);
    this.layers.delete(id);
  }

  located(place) {
    const [scan] = place.values;
    const at = scan.vox.map((v) => Math.round(v) * this.info.stride);
    const ids = [...this.layers.keys()];
    const layers = place.values.slice(1).map((value, i) => [ids[i], value.value]).filter(([id]) => this.layers.get(id)?.visible);
    this.report({ place: `voxel ${at.join(", ")}`, value: String(Math.round(scan.value * 100) / 100), layers });
  }

  key(event) {
    const steps = {
      ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1],
    };
    if (!steps[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    this.niivue.moveCrosshairInVox(...steps[event.key]);
  }
}

function heat(lut) {
  const rows = { R: [], G: [], B: [], A: [], I: [] };
  for (let i = 0; i < 256; i += 15) {
    rows.R.push(lut[4 * i]);
    rows.G.push(lut[4 * i + 1]);
    rows.B.push(lut[4 * i + 2]);
    rows.A.push(Math.min(255, lut[4 * i + 3]));
    rows.I.push(i);
  }
  return rows;
}
