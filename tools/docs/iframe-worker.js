// Browsers refuse workers to pages opened from a folder (file://). There a hidden frame does the search worker's work.
if (location.protocol === "file:") window.Worker = class extends EventTarget {
  constructor(url) {
    super()
    const frame = document.createElement("iframe"), waiting = []
    frame.hidden = true
    document.body.append(frame)
    const inside = frame.contentWindow, script = inside.document.createElement("script")
    inside.postMessage = data => setTimeout(() => this.dispatchEvent(new MessageEvent("message", {data})))
    const send = data => inside.dispatchEvent(new inside.MessageEvent("message", {data}))
    this.postMessage = data => waiting.push(data)
    script.onload = () => { waiting.forEach(send); this.postMessage = data => setTimeout(() => send(data)) }
    script.src = new URL(url, location).href
    inside.document.head.append(script)
    this.terminate = () => frame.remove()
  }
}
