// The selected jobs of a list. They stay selected while the list is paged or updated.

export class Selection {
  /** changed() is called after each change. */
  constructor(changed) {
    this.jobs = new Map();
    this.changed = changed;
    this.last = "";
  }

  get size() { return this.jobs.size; }
  has(id) { return this.jobs.has(id); }

  /** Select or deselect a job; with `range`, also the jobs of the list between it and the last one. */
  toggle(job, on, list, range) {
    const from = list.findIndex((other) => other.id === this.last), to = list.findIndex((other) => other.id === job.id);
    const between = range && from >= 0 ? list.slice(Math.min(from, to), Math.max(from, to) + 1) : [job];
    for (const other of between) this.set(other, on);
    this.last = job.id;
    this.changed();
  }

  /** Select or deselect all jobs of a list. */
  all(list, on) {
    for (const job of list) this.set(job, on);
    this.changed();
  }

  clear() {
    this.jobs.clear();
    this.changed();
  }

  /** Replace selected jobs by their new versions. */
  refresh(list) {
    for (const job of list) if (this.jobs.has(job.id)) this.jobs.set(job.id, job);
  }

  /** Selected jobs with an action. */
  with(action) {
    return [...this.jobs.values()].filter((job) => job.actions.includes(action));
  }

  set(job, on) {
    if (on) this.jobs.set(job.id, job);
    else this.jobs.delete(job.id);
  }
}
