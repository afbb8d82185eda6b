// One sound, or several of one clip at the same time, of which one is heard: switching loses no sample.
// Sound comes as data: addresses; Web Audio plays it, so that all of a clip keep one clock.
"use strict";

class Player {
  static context = null;
  static playing = null; // the one player that sounds
  static loaded = []; // players with decoded sound, the last used first

  constructor(addresses, changed) {
    this.addresses = addresses;
    this.changed = changed; // called after each change of state, and on every frame while it plays
    this.buffers = this.loading = null;
    this.active = 0;
    this.loop = false;
    this.part = null; // [from, to] in seconds: what is looped, if not all
    this.at = 0; // seconds, while it stands still
    this.since = null; // the context's time at which the clip began, while it plays
    this.voices = [];
  }

  static clock() {
    Player.context ??= new AudioContext();
    return Player.context;
  }

  async load() {
    this.loading ??= Promise.all(
      this.addresses.map((address) => {
        const bytes = Uint8Array.from(atob(address.slice(address.indexOf(",") + 1)), (c) => c.charCodeAt(0));
        return Player.clock().decodeAudioData(bytes.buffer);
      }),
    );
    const buffers = await this.loading;
    this.buffers = buffers;
    Player.loaded = [this, ...Player.loaded.filter((other) => other !== this)];
    for (const other of Player.loaded.slice(4)) other.unload(); // decoded sound is large
  }

  unload() {
    if (this.sounding) return;
    this.buffers = this.loading = null;
    Player.loaded = Player.loaded.filter((other) => other !== this);
  }

  get duration() {
    return this.buffers ? Math.max(...this.buffers.map((buffer) => buffer.duration)) : 0;
  }

  get bounds() {
    return this.part ?? [0, this.duration];
  }

  get sounding() {
    return this.since !== null;
  }

  get position() {
    if (!this.sounding) return this.at;
    const past = Math.max(0, Player.clock().currentTime - this.since);
    const [from, to] = this.bounds;
    if (this.loop && past >= to) return from + ((past - from) % (to - from));
    return Math.min(past, this.duration);
  }

  async play(from = this.at) {
    await this.load();
    const clock = Player.clock();
    if (clock.state === "suspended") await clock.resume();
    if (Player.playing && Player.playing !== this) Player.playing.pause();
    this.stop();
    const begin = clock.currentTime + 0.02;
    const [loopStart, loopEnd] = this.bounds;
    const start = this.loop && from >= loopEnd ? loopStart : from; // beyond its end there is no loop
    const offset = Math.min(Math.max(start, 0), Math.max(0, this.duration - 0.01));
    this.voices = this.buffers.map((buffer, i) => {
      const source = new AudioBufferSourceNode(clock, { buffer, loop: this.loop, loopStart, loopEnd });
      const gain = new GainNode(clock, { gain: i === this.active ? 1 : 0 });
      source.connect(gain).connect(clock.destination);
      source.start(begin, Math.min(offset, buffer.duration));
      return { source, gain };
    });
    this.since = begin - offset;
    Player.playing = this;
    const frame = () => {
      if (Player.playing !== this || !this.sounding) return;
      if (!this.loop && this.position >= this.duration) {
        this.stop();
        this.at = 0;
        this.changed();
        return;
      }
      this.changed();
      requestAnimationFrame(frame);
    };
    frame();
  }

  stop() {
    for (const { source } of this.voices) {
      source.stop();
      source.disconnect();
    }
    this.voices = [];
    this.since = null;
  }

  pause() {
    if (this.sounding) this.at = this.position;
    this.stop();
    this.changed();
  }

  toggle() {
    return this.sounding ? this.pause() : this.play();
  }

  choose(index) {
    this.active = index;
    this.voices.forEach(({ gain }, i) => {
      gain.gain.setTargetAtTime(i === index ? 1 : 0, Player.clock().currentTime, 0.004); // no click
    });
    this.changed();
  }

  async seek(seconds) {
    await this.load();
    const to = Math.min(Math.max(seconds, 0), this.duration);
    if (this.sounding) return this.play(to);
    this.at = to;
    this.changed();
  }

  async repeat(loop, part = this.part) {
    const at = this.position;
    this.loop = loop;
    this.part = part;
    if (this.sounding) return this.play(at);
    this.changed();
  }
}
