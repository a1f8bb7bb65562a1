mod keys;
mod model;
mod screen;
mod text;
mod view;
mod world;
