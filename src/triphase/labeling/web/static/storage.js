// What this browser remembers; nothing where it does not let us (private mode).

export const keep = (key, value) => { try { localStorage.setItem(key, JSON.stringify(value)); } catch { /* not kept */ } };
export const recall = (key) => { try { return JSON.parse(localStorage.getItem(key)); } catch { return null; } };
export const forget = (key) => { try { localStorage.removeItem(key); } catch { /* was not kept */ } };
