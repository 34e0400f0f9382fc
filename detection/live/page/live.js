// The live page: one WebSocket in, one canvas out. The wire is described in detection/live/server.py.

const $ = id => document.getElementById(id)
const canvas = $('picture'), pen = canvas.getContext('2d')
const FIRST_TRY = 300, SLOWEST_TRY = 3000 // milliseconds between attempts to connect
const HISTORY = 100 // pictures
const CALM = 0.8 // weight of the past in what the bars show

let about = null, state = null, head = null, bitmap = null // what is known; head and bitmap belong together
let socket = null, attempts = 0
let drawing = null // the line that is being drawn: shares x1, y1, x2, y2, or [] before the first touch
let touched = -Infinity // when the slider was moved last
let costs = [], history = []

// ---- the wire ----

async function connect() {
  try {
    const answer = await fetch('about.json')
    if (!answer.ok) return lose(await answer.text())
    show_about(await answer.json())
  } catch { return lose() }
  const opened = new WebSocket(new URL('live', location.href.replace(/^http/, 'ws')))
  opened.binaryType = 'arraybuffer'
  opened.onopen = () => { attempts = 0 }
  opened.onmessage = message => typeof message.data === 'string' ? show_state(JSON.parse(message.data).state) : take(opened, message.data)
  opened.onclose = () => lose()
  socket = opened
}

function lose(reason) {
  socket = null
  status('lost', reason ? reason.trim() : 'no connection, trying again')
  $('stage').classList.add('lost')
  setTimeout(connect, Math.min(SLOWEST_TRY, FIRST_TRY * 1.6 ** attempts++))
}

function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message))
}

async function take(from, data) {
  const length = new DataView(data).getUint32(0, true)
  const words = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)))
  const picture = await createImageBitmap(new Blob([new Uint8Array(data, 4 + length)], {type: 'image/jpeg'}))
  bitmap?.close()
  bitmap = picture
  head = words
  show_head()
  draw()
  if (from.readyState === WebSocket.OPEN) from.send('{"seen":1}')
}

// ---- the picture ----

function shown() {
  const hidden = new Set(state?.hidden)
  return head.boxes.filter(box => !hidden.has(box[5]) && (box[4] >= state.score || box[6] > 0))
}

function draw() {
  if (!bitmap || !state) return
  const [width, height] = head.size
  const stage = $('stage')
  stage.style.setProperty('--ratio', width / height)
  const fit = Math.min(stage.clientWidth / width, stage.clientHeight / height)
  canvas.style.width = `${width * fit}px`
  canvas.style.height = `${height * fit}px`
  canvas.width = Math.round(width * fit * devicePixelRatio)
  canvas.height = Math.round(height * fit * devicePixelRatio)
  pen.imageSmoothingQuality = 'high'
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height)
  const boxes = shown()
  for (const box of boxes.toReversed()) draw_box(box, canvas.width / width)
  const line = drawing?.length ? drawing : state.line
  if (line) draw_line(line)
  canvas.dataset.frame = head.frame
  canvas.dataset.boxes = boxes.length
  $('count').textContent = boxes.length
}

function draw_box([x1, y1, x2, y2, score, label, id], scale) {
  const kind = about.classes[label], thick = 2 * devicePixelRatio
  const [x, y, right, bottom] = [x1, y1, x2, y2].map(value => Math.round(value * scale)), [w, h] = [right - x, bottom - y]
  pen.lineWidth = thick + 2 * devicePixelRatio
  pen.strokeStyle = 'rgb(0 0 0 / .45)'
  pen.strokeRect(x, y, w, h)
  pen.lineWidth = thick
  pen.strokeStyle = kind.color
  pen.strokeRect(x, y, w, h)
  const words = [id ? `#${id}` : '', about.classes.length > 1 ? kind.name : '', score.toFixed(2)].filter(Boolean).join(' ')
  plate(words, x - thick / 2, y - thick / 2, kind.color)
}

// words on a plate of that colour that stands on (x, y), inside of the picture
function plate(words, x, y, color) {
  const size = 12 * devicePixelRatio
  pen.font = `600 ${size}px system-ui, sans-serif`
  pen.textBaseline = 'middle'
  const width = pen.measureText(words).width + size * .7, tall = size * 1.45
  x = Math.max(0, Math.min(x, canvas.width - width))
  y = y >= tall ? y - tall : y
  pen.fillStyle = color
  pen.fillRect(x, y, width, tall)
  pen.fillStyle = bright(color) ? '#0c0f11' : '#fff'
  pen.fillText(words, x + size * .35, y + tall / 2 + size * .05)
}

const bright = color => [.3, .59, .11].reduce((sum, part, i) => sum + part * parseInt(color.slice(1 + 2 * i, 3 + 2 * i), 16), 0) > 110

// right of a walker from the first end to the second is the side to which `right` is counted
function draw_line([x1, y1, x2, y2]) {
  const [a, b, c, d] = [x1 * canvas.width, y1 * canvas.height, x2 * canvas.width, y2 * canvas.height]
  const length = Math.hypot(c - a, d - b) || 1, unit = devicePixelRatio
  pen.lineCap = 'round'
  for (const [color, width] of [['rgb(0 0 0 / .5)', 6], ['#fff', 3]]) {
    pen.strokeStyle = color
    pen.lineWidth = width * unit
    pen.beginPath()
    pen.moveTo(a, b)
    pen.lineTo(c, d)
    pen.stroke()
  }
  if (drawing) return
  const [right, left] = head.crossed, [nx, ny] = [-(d - b) / length, (c - a) / length]
  count_sign(right, (a + c) / 2 + nx * 20 * unit, (b + d) / 2 + ny * 20 * unit, Math.atan2(ny, nx))
  count_sign(left, (a + c) / 2 - nx * 20 * unit, (b + d) / 2 - ny * 20 * unit, Math.atan2(-ny, -nx))
}

// a round number with an arrow out of it
function count_sign(number, x, y, angle) {
  const r = 12 * devicePixelRatio
  pen.save()
  pen.translate(x, y)
  pen.fillStyle = '#fff'
  pen.beginPath()
  pen.arc(0, 0, r, angle + .5, angle - .5)
  pen.lineTo(Math.cos(angle) * r * 1.55, Math.sin(angle) * r * 1.55)
  pen.fill()
  pen.fillStyle = '#0c0f11'
  pen.font = `700 ${r}px system-ui, sans-serif`
  pen.textAlign = 'center'
  pen.textBaseline = 'middle'
  pen.fillText(number, 0, r * .08)
  pen.restore()
}

// ---- words and numbers ----

const number = value => Math.round(value).toLocaleString('en')

// a cost in the device's unit, short: both units are a million of what is counted
function cost(value) {
  const millions = value / 1e6
  return `${millions < 10 ? millions.toFixed(2) : millions.toFixed(1)} ${about.unit === 'ns' ? 'ms' : 'M'}`
}

function status(kind, words) {
  $('status').className = kind
  $('status').textContent = words
}

function show_state(given) {
  const dragged = performance.now() - touched < 600
  state = {...given, score: dragged ? state.score : given.score}
  $('stage').classList.remove('lost')
  status(state.paused ? 'paused' : 'live', state.paused ? 'paused' : 'live')
  $('problem').hidden = !state.problem
  $('problem').textContent = state.problem ?? ''
  $('score').value = state.score
  $('least').textContent = state.score.toFixed(2)
  press('pause', state.paused, ['Pause', 'Go on'])
  press('record', state.recording, ['Record', 'Stop'])
  press('track', state.tracking, ['Track', 'Track'])
  press('line', state.line || drawing, ['Line', drawing ? 'Draw it' : 'No line'])
  $('stage').classList.toggle('drawing', Boolean(drawing))
  for (const button of $('classes').children) button.setAttribute('aria-pressed', !state.hidden.includes(Number(button.value)))
  draw()
}

function press(id, down, words) {
  $(id).setAttribute('aria-pressed', Boolean(down))
  $(id).textContent = words[down ? 1 : 0]
}

function show_head() {
  $('empty').hidden = true
  $('rate').textContent = head.rate.toFixed(1)
  const counted = head.cost !== null
  $('latency').replaceChildren(counted ? (head.cost / 1e6).toFixed(1) : head.ms.toFixed(1), ' ', make('small', {}, counted ? `M ${about.counts}` : 'ms'))
  $('latency-of').textContent = counted ? `on ${about.target}, counted` : 'latency here'
  $('objects').textContent = state?.tracking ? number(head.objects) : '–'
  $('name').textContent = state?.recording ? `${head.recorded} recorded to ${state.recording}` : head.name
  history = [...history, counted ? head.cost / 1e6 : head.ms].slice(-HISTORY)
  const top = Math.max(...history) * 1.1
  $('history').firstElementChild.setAttribute('points', history.map((value, i) => `${100 - (history.length - 1 - i) * 100 / (HISTORY - 1)},${24 - 24 * value / top}`).join(' '))
  if (head.costs) show_costs()
  if (head.touched) $('buffer').dataset.measured = `measured: ${number(head.touched)} B of work memory, ${number(head.stack)} B of stack`
  if (!chosen) tell(null)
}

function show_costs() {
  costs = head.costs.map((value, i) => costs.length ? CALM * costs[i] + (1 - CALM) * value : value)
  const top = Math.max(...costs)
  costs.forEach((value, i) => {
    const [, words, bar] = $('bars').children[i].children
    words.textContent = cost(value)
    bar.firstElementChild.style.width = `${100 * value / top}%`
  })
}

// ---- what stays the same ----

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties)
  made.append(...children)
  return made
}

function shape(tag, attributes) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  return made
}

function show_about(given) {
  if (about && about.sha256 !== given.sha256) [bitmap, head] = [null, null]
  about = given
  costs = history = []
  document.title = `${about.model}, live`
  $('model').textContent = `${about.model} · ${about.input.join('×')} · ${about.target === 'host' ? 'this machine' : about.target}`
  $('score').min = Math.ceil(100 * about.threshold) / 100
  $('classes').replaceChildren(...(about.classes.length < 2 ? [] : about.classes.map((kind, label) => {
    const dot = make('i')
    dot.style.background = kind.color
    return make('button', {value: label, onclick: () => toggle_class(label)}, dot, kind.name)
  })))
  $('unit').textContent = about.unit === 'ns' ? 'ms on this machine' : `millions of ${about.unit}`
  $('costs').hidden = !about.unit
  $('bars').replaceChildren(...about.segments.map((segment, i) => {
    const entry = make('li', {title: segment.macs === null ? '' : `${number(segment.macs)} MACs`, onpointerenter: () => choose(i), onpointerleave: () => choose(null)})
    entry.append(make('span', {}, `${i + 1}  ${segment.name}`), make('b'), make('div', {}, make('i')))
    return entry
  }))
  show_memory()
}

function show_memory() {
  const memory = about.memory
  $('memory').hidden = !memory
  if (!memory) return
  $('peak').textContent = `${number(about.peak_sram)} B at most`
  const map = $('map')
  map.setAttribute('viewBox', `0 0 ${memory.steps} ${memory.size}`)
  map.replaceChildren()
  for (const [node, offset, size, first, stop, whole] of memory.buffers) {
    const buffer = shape('rect', {x: first, y: offset, width: stop - first, height: size, class: `buffer ${whole ? 'whole' : 'ring'}`})
    buffer.onpointerenter = () => tell(`${node}: ${number(size)} B at ${number(offset)}, ${whole ? 'whole' : 'a ring of rows'}`)
    buffer.onpointerleave = () => tell(null)
    map.append(buffer)
  }
  for (const {nodes: [first]} of about.segments.slice(1)) map.append(shape('line', {x1: first, x2: first, y1: 0, y2: memory.size}))
  $('parts').replaceChildren(...Object.entries(memory.parts).flatMap(([name, size]) =>
    [make('dt', {}, name.replaceAll('_', ' ')), make('dd', {}, `${number(size)} B`)]))
}

let chosen = false // something is told about the place under the pointer

function tell(words) {
  chosen = words !== null
  $('buffer').textContent = words ?? $('buffer').dataset.measured ?? 'left to right: the nodes in turn; point at a buffer for its name'
}

function choose(index) {
  $('map').querySelector('.chosen')?.remove()
  if (index === null || !about.memory) return
  const [first, stop] = about.segments[index].nodes
  $('map').append(shape('rect', {x: first, y: 0, width: stop - first, height: about.memory.size, class: 'chosen'}))
}

// ---- controls ----

const set = values => send({set: values})

function toggle_class(label) {
  const hidden = new Set(state.hidden)
  hidden.delete(label) || hidden.add(label)
  set({hidden: [...hidden]})
}

$('score').oninput = event => {
  touched = performance.now()
  state.score = Number(event.target.value)
  $('least').textContent = state.score.toFixed(2)
  draw()
  set({score: state.score})
}
$('pause').onclick = () => set({paused: !state.paused})
$('record').onclick = () => send({record: !state.recording})
$('track').onclick = () => set(state.tracking ? {tracking: false, line: null} : {tracking: true})
$('line').onclick = () => {
  if (state.line) return set({line: null})
  drawing = drawing ? null : []
  show_state(state)
}

const share = (event, box = canvas.getBoundingClientRect()) => [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map(v => Math.min(1, Math.max(0, v)))
canvas.onpointerdown = event => {
  if (!drawing) return
  canvas.setPointerCapture(event.pointerId)
  drawing = [...share(event), ...share(event)]
}
canvas.onpointermove = event => {
  if (!drawing?.length) return
  drawing.splice(2, 2, ...share(event))
  draw()
}
canvas.onpointerup = () => {
  if (!drawing?.length) return
  const line = drawing
  drawing = null
  if (Math.hypot(line[2] - line[0], line[3] - line[1]) > 0.02) set({tracking: true, line})
  show_state(state)
}
addEventListener('resize', draw)
connect()
