//! Stories of a node, step by step in virtual time, over a scripted runtime and a small API.

mod lifecycle;
mod node;
mod properties;
mod world;

use world::World;
