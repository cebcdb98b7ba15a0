// Lets the search work in pages that are opened from disk, where browsers allow no web workers: the worker's script
// runs in a hidden frame instead, with the messages of a worker.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      const element = document.createElement("iframe")
      element.hidden = true
      document.body.append(element)
      this.frame = element.contentWindow
      this.ready = new Promise((resolve) => element.addEventListener("load", resolve, { once: true }))
      window.addEventListener("message", (event) => {
        if (event.source === this.frame) this.dispatchEvent(new MessageEvent("message", { data: event.data }))
      })
      const page = this.frame.document
      page.open()
      page.write(`<!doctype html><title>worker</title><body><script>
        postMessage = (data) => parent.postMessage(data, "*")
        importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise((done, failed) => {
          const script = document.createElement("script")
          script.src = url
          script.onload = done
          script.onerror = failed
          document.body.append(script)
        })), Promise.resolve())
      <\/script><script src="${new URL(url, location.href)}"><\/script>`)
      page.close()
    }

    postMessage(data) {
      this.ready.then(() => this.frame.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
  window.Worker = window.IFrameWorker
}
