// Time on task: counts while the page is seen and someone is there (the last touch less than a minute ago).

const IDLE_SECONDS = 60;

export class Timer {
  constructor(show) {
    this.seconds = 0;
    this.touched = performance.now();
    this.last = performance.now();
    for (const name of ["pointerdown", "pointermove", "keydown", "wheel", "touchstart", "scroll"]) {
      window.addEventListener(name, () => (this.touched = performance.now()), { passive: true });
    }
    setInterval(() => {
      this.tick();
      show(this.seconds);
    }, 1000);
    document.addEventListener("visibilitychange", () => this.tick());
  }

  tick() {
    const now = performance.now();
    const there = !document.hidden && now - this.touched < IDLE_SECONDS * 1000;
    if (there) this.seconds += Math.min((now - this.last) / 1000, 5);
    this.last = now;
  }

  restart(seconds = 0) {
    this.seconds = seconds;
    this.touched = this.last = performance.now();
  }

  read() {
    this.tick();
    return Math.round(this.seconds * 10) / 10;
  }
}
