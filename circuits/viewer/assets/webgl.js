// Many thin edges on a canvas below plotly's picture. Vertices are sent once per list of edges and layout; a slider
// changes how many are drawn, and moving or zooming the picture changes four numbers.

const DENSE_POINTS = LOOK.densePoints;
const VERTEX = `attribute vec2 place; attribute vec4 colour; uniform vec4 frame; varying vec4 painted;
void main() { gl_Position = vec4((place - frame.xy) * frame.zw - 1.0, 0.0, 1.0); painted = colour; }`;
const FRAGMENT = `precision mediump float; varying vec4 painted;
void main() { gl_FragColor = vec4(painted.rgb * painted.a, painted.a); }`;

function makeDense(canvas) {
  const gl = canvas.getContext("webgl2", { antialias: false }) || null;
  if (!gl) return null;
  const program = gl.createProgram();
  for (const [type, code] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, code);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
  gl.useProgram(program);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  const frame = gl.getUniformLocation(program, "frame");
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  const stride = 12;
  gl.enableVertexAttribArray(gl.getAttribLocation(program, "place"));
  gl.vertexAttribPointer(gl.getAttribLocation(program, "place"), 2, gl.FLOAT, false, stride, 0);
  gl.enableVertexAttribArray(gl.getAttribLocation(program, "colour"));
  gl.vertexAttribPointer(gl.getAttribLocation(program, "colour"), 4, gl.UNSIGNED_BYTE, true, stride, 8);
  let range = [0, 0], axes = null, version = 0, painted = "", waiting = 0;

  function schedule() {                       // once a frame, and only what changed
    if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; paint(false); });
  }

  function paint(anyway) {
    canvas.hidden = range[0] === range[1];    // nothing to compose with the picture above
    const key = JSON.stringify([range, axes, version, canvas.clientWidth, canvas.clientHeight, window.devicePixelRatio]);
    if (canvas.hidden || (key === painted && !anyway)) return;
    painted = key;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio)), height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    gl.disable(gl.SCISSOR_TEST);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (!axes) return;
    // plotly's plotting area within the canvas, in pixels from the bottom left
    const left = axes.left * ratio, bottom = height - (axes.top + axes.height) * ratio;
    const area = [left, bottom, axes.width * ratio, axes.height * ratio].map(Math.round);
    gl.viewport(...area);
    gl.enable(gl.SCISSOR_TEST);
    gl.scissor(...area);
    gl.uniform4f(frame, axes.x[0], axes.y[0], 2 / (axes.x[1] - axes.x[0]), 2 / (axes.y[1] - axes.y[0]));
    const indices = 2 * (DENSE_POINTS - 1);
    gl.drawElements(gl.LINES, (range[1] - range[0]) * indices, gl.UNSIGNED_INT, 4 * range[0] * indices);
  }

  return {
    send(vertices, colours, edges) {          // vertices: x, y of each point; colours: RGBA bytes of each edge
      const data = new ArrayBuffer(edges * DENSE_POINTS * stride);
      const places = new Float32Array(data), paints = new Uint32Array(data), bytes = new Uint32Array(colours.buffer);
      const indices = new Uint32Array(edges * 2 * (DENSE_POINTS - 1));
      for (let edge = 0, at = 0, put = 0; edge < edges; edge++)
        for (let point = 0; point < DENSE_POINTS; point++, at++) {
          places[3 * at] = vertices[2 * at];
          places[3 * at + 1] = vertices[2 * at + 1];
          paints[3 * at + 2] = bytes[edge];
          if (point) { indices[put++] = at - 1; indices[put++] = at; }
        }
      version++;
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, indices, gl.STATIC_DRAW);
    },
    draw(first, last) {
      range = [first, Math.max(first, last)];
      canvas.dataset.edges = String(range[1] - range[0]);
      schedule();
    },
    move(now) { axes = now; schedule(); },
    image() { paint(true); return canvas.toDataURL("image/png"); },
    get edges() { return range[1] - range[0]; },
  };
}
