//! Stories of a node, step by step in virtual time, over a scripted runtime and a small API.

mod closed_form;
mod lifecycle;
mod node;
mod properties;
mod storage;
mod world;

use world::World;
