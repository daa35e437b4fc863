// Triangle meshes that turn together, in WebGL 2.
//
// data.focus: the lowest and highest places that are looked at first.
// data.meshes: [{name, positions, faces, values?}]: positions are 16-bit parts of the box from
// data.low to data.high; values, from 0 to 65535, are places on the colour map of data.bar.

const VERTEX = `#version 300 es
in vec3 position; in vec3 normal; in vec3 colour;
uniform mat3 turn; uniform vec3 low, extent; uniform vec4 lens;
out vec3 n, c;
void main() {
  vec3 p = turn * (low + position * extent);
  n = turn * normal;
  c = colour;
  gl_Position = vec4((p.xy * lens.z + lens.xy) / vec2(lens.w, 1.0), -0.2 * p.z, 1.0);
}`;
const FRAGMENT = `#version 300 es
precision highp float;
in vec3 n, c;
out vec4 shown;
void main() {
  // what is seen from within, through a hole, is darker
  vec3 up = normalize(n) * (gl_FrontFacing ? 1.0 : -1.0);
  float light = 0.35 + 0.55 * max(dot(up, normalize(vec3(0.4, 0.6, 0.8))), 0.0)
    + 0.18 * max(dot(up, normalize(vec3(-0.7, -0.2, 0.4))), 0.0);
  shown = vec4(c * light * (gl_FrontFacing ? 1.0 : 0.55), 1.0);
}`;

function vertexNormals(positions, faces, extent) {
  const made = new Float32Array(positions.length);
  const u = [0, 0, 0];
  const v = [0, 0, 0];
  for (let f = 0; f < faces.length; f += 3) {
    const i = 3 * faces[f];
    const j = 3 * faces[f + 1];
    const k = 3 * faces[f + 2];
    for (let a = 0; a < 3; a++) {
      u[a] = (positions[j + a] - positions[i + a]) * extent[a];
      v[a] = (positions[k + a] - positions[i + a]) * extent[a];
    }
    for (let a = 0; a < 3; a++) {
      const b = (a + 1) % 3;
      const c = (a + 2) % 3;
      const part = u[b] * v[c] - u[c] * v[b];
      made[i + a] += part;
      made[j + a] += part;
      made[k + a] += part;
    }
  }
  for (let i = 0; i < made.length; i += 3) {
    const length = Math.hypot(made[i], made[i + 1], made[i + 2]) || 1;
    for (let a = 0; a < 3; a++) made[i + a] /= length;
  }
  return made;
}

function program(gl) {
  const made = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  return made;
}

class Solid {
  constructor(mesh, box, label) {
    this.canvas = make("canvas", { role: "img", tabindex: 0, "aria-label": label,
      style: "aspect-ratio: 1.1; max-width: 94vh; touch-action: none" });
    this.gl = this.canvas.getContext("webgl2", { antialias: true, preserveDrawingBuffer: true });
    if (!this.gl) throw new Error("this browser has no WebGL 2");
    Object.assign(this, { program: program(this.gl), buffers: new Map() });
    this.gl.enable(this.gl.DEPTH_TEST);
    this.take(mesh, box, false);
  }

  // The mesh that is shown from now on.
  take(mesh, box, byValue) {
    const { gl } = this;
    Object.assign(this, { mesh, box });
    this.upload("position", mesh.positions, 3, gl.UNSIGNED_SHORT, true);
    this.upload("normal", vertexNormals(mesh.positions, mesh.faces, box.extent), 3, gl.FLOAT, false);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.buffer("faces"));
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, mesh.faces, gl.STATIC_DRAW);
    this.paint(byValue);
  }

  buffer(name) {
    if (!this.buffers.has(name)) this.buffers.set(name, this.gl.createBuffer());
    return this.buffers.get(name);
  }

  upload(name, array, size, type, normalised) {
    const { gl } = this;
    const place = gl.getAttribLocation(this.program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffer(name));
    gl.bufferData(gl.ARRAY_BUFFER, array, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, size, type, normalised, 0, 0);
  }

  // Colours by the values of the vertices, or one for all.
  paint(byValue) {
    const { positions, values, map } = this.mesh;
    const colours = new Uint8Array(positions.length).fill(200);
    if (byValue && values) {
      const lookup = table(map);
      values.forEach((v, i) => colours.set(lookup.subarray(3 * (v >> 8), 3 * (v >> 8) + 3), 3 * i));
    }
    this.upload("colour", colours, 3, this.gl.UNSIGNED_BYTE, true);
  }

  draw(camera) {
    const { canvas, gl, box } = this;
    if (!canvas.clientWidth) return;
    const dense = window.devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * dense);
    canvas.height = Math.round(canvas.clientHeight * dense);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.useProgram(this.program);
    const to = (name) => gl.getUniformLocation(this.program, name);
    gl.uniformMatrix3fv(to("turn"), false, camera.matrix());
    gl.uniform3fv(to("low"), box.low);
    gl.uniform3fv(to("extent"), box.extent);
    gl.uniform4f(to("lens"), camera.x, camera.y, camera.zoom, canvas.width / canvas.height);
    gl.drawElements(gl.TRIANGLES, this.mesh.faces.length, gl.UNSIGNED_INT, 0);
  }
}

class Camera {
  constructor() {
    this.upright = "y";
    this.reset();
  }

  reset() {
    Object.assign(this, { yaw: 0.6, pitch: 0.35, zoom: 1.1, x: 0, y: 0 });
  }

  // Columns of the rotation that takes the shape to the screen: x right, y up, z to the eye.
  matrix() {
    const [s, c] = [Math.sin(this.yaw), Math.cos(this.yaw)];
    const [p, q] = [Math.sin(this.pitch), Math.cos(this.pitch)];
    const [x, y, z] = [[c, p * s, -q * s], [0, q, p], [s, -p * c, q * c]];
    // with z upright, x stays and y points away from the eye
    return this.upright === "y" ? [...x, ...y, ...z] : [...x, ...z.map((v) => -v), ...y];
  }
}

function unpackMeshes(data) {
  return Promise.all(data.meshes.map(async (mesh) => ({
    name: mesh.name, map: data.bar && data.bar.map, positions: await numbers(mesh.positions),
    faces: await numbers(mesh.faces), values: mesh.values ? await numbers(mesh.values) : null,
  })));
}

// The box of the meshes where the ball about the first of them is of radius 1 about 0.
function boxOfMeshes(data) {
  const [least, most] = data.focus;
  const radius = Math.hypot(...most.map((v, a) => v - least[a])) / 2 || 1;
  return {
    low: data.low.map((v, a) => (v - (least[a] + most[a]) / 2) / radius),
    extent: data.low.map((v, a) => (data.high[a] - v) / radius),
  };
}

widgets.mesh = async (root, data) => {
  const structure = (one) => [one.bar && [one.bar.name, one.bar.map],
    one.meshes.map((mesh) => [mesh.name, Boolean(mesh.values)])];
  const meshes = await unpackMeshes(data);
  const box = boxOfMeshes(data);
  const solids = meshes.map((mesh) => new Solid(mesh, box, mesh.name));
  const bars = [];
  let coloured = false;
  const camera = new Camera();
  let pending = false;
  const redraw = () => {
    if (pending) return;
    pending = true;
    requestAnimationFrame(() => {
      pending = false;
      solids.forEach((solid) => solid.draw(camera));
    });
  };
  const zoom = (factor) => { camera.zoom = clamp(camera.zoom * factor, 0.2, 60); redraw(); };
  const turn = (dx, dy) => {
    camera.yaw += dx;
    camera.pitch = clamp(camera.pitch + dy, -1.57, 1.57);
    redraw();
  };
  const figures = solids.map((solid, i) => {
    const { canvas } = solid;
    const held = new Map();
    canvas.addEventListener("pointerdown", (event) => {
      held.set(event.pointerId, [event.clientX, event.clientY]);
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const last = held.get(event.pointerId);
      if (!last) return;
      const [dx, dy] = [event.clientX - last[0], event.clientY - last[1]];
      const others = [...held].filter(([id]) => id !== event.pointerId);
      held.set(event.pointerId, [event.clientX, event.clientY]);
      if (others.length) {
        const [x, y] = others[0][1];
        zoom(Math.hypot(event.clientX - x, event.clientY - y) / Math.max(1, Math.hypot(last[0] - x, last[1] - y)));
      } else if (event.shiftKey) {
        camera.x += (2 * dx) / canvas.clientHeight;
        camera.y -= (2 * dy) / canvas.clientHeight;
        redraw();
      } else turn(dx / 150, dy / 150);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => held.delete(event.pointerId));
    }
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== canvas) return;
      event.preventDefault();
      zoom(1.0015 ** -event.deltaY);
    }, { passive: false });
    canvas.addEventListener("dblclick", () => { camera.reset(); redraw(); });
    canvas.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };
      if (event.key in steps) turn(...steps[event.key]);
      else if (event.key === "+" || event.key === "=") zoom(1.3);
      else if (event.key === "-") zoom(1 / 1.3);
      else if (event.key === "0") { camera.reset(); redraw(); }
      else return;
      event.preventDefault();
    });
    new ResizeObserver(redraw).observe(canvas);
    const bar = data.bar && meshes[i].values
      ? make("div", { class: "bar" }, make("span", {}, data.bar.low),
        make("i", { style: gradient(data.bar.map) }), make("span", {}, data.bar.high)) : null;
    if (bar) bars.push(bar);
    return make("figure", {}, canvas, make("figcaption", {}, meshes[i].name), bar);
  });
  const button = (label, name, act) =>
    make("button", { type: "button", "aria-label": label, title: label, onclick: act }, name);
  const tools = make("div", { class: "tools" },
    make("fieldset", { role: "group", "aria-label": "zoom" }, button("zoom out", "−", () => zoom(1 / 1.3)),
      button("zoom in", "+", () => zoom(1.3)), button("show all", "all", () => { camera.reset(); redraw(); })),
    choice("upright", ["y up", "z up"], 0, (i) => { camera.upright = "yz"[i]; redraw(); }));
  if (data.bar) {
    const byValue = (i) => { coloured = i === 1; solids.forEach((solid) => solid.paint(coloured)); redraw(); };
    tools.append(choice("colours", ["plain", data.bar.name], 1, byValue));
    byValue(1);
  }
  root.append(tools, make("div", { class: solids.length % 2 ? "panes wide" : "panes even" }, ...figures),
    make("p", { class: "hint" }, "Drag to turn; Shift and drag to move."));
  redraw();
  return {
    update: async (fresh) => {
      if (!alike(structure(fresh), structure(data))) return false;
      const changed = await unpackMeshes(fresh);
      const placed = boxOfMeshes(fresh);
      solids.forEach((solid, i) => solid.take(changed[i], placed, coloured));
      for (const bar of bars) {
        bar.firstChild.textContent = fresh.bar.low;
        bar.lastChild.textContent = fresh.bar.high;
      }
      redraw();
      return true;
    },
    // a browser keeps only a few contexts alive
    close: () => solids.forEach(({ gl }) => {
      const lose = gl.getExtension("WEBGL_lose_context");
      if (lose) lose.loseContext();
    }),
  };
};
