//! The sandbox on the real kernel: every test starts a launcher, a zygote and workers of its
//! own and, when it ends, checks that no process, cgroup, mount or directory is left. What the
//! host does not let us enforce is skipped with the reason printed.

mod calls;
mod isolation;
mod life;
mod limits;
mod memory;
mod networks;
mod preloads;
mod rules;
mod sharing;
mod speed;
mod stage;
mod starts;
mod walls;
