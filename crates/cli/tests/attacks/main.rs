//! Hostile functions against a real platform. Each attack is a handler in `tests/attacks/` at the
//! repository's root, which says what it tries and what must come of it.
//!
//! Every test is a [`siege::Siege`]: a platform with attackers and one victim that is called all
//! the time. It asserts what becomes of the attacker (by name), that the victim loses no call,
//! and that nothing of the attack is left, neither processes nor memory of the platform. What
//! the victim's latency was is printed; `latency` asserts it, when asked to.

#[path = "../harness/platform.rs"]
mod platform;

mod archives;
mod crashes;
mod exhaustion;
mod forgeries;
mod latency;
mod limits;
mod neighbours;
mod outputs;
mod refusals;
mod rivals;
mod siege;
mod witness;
