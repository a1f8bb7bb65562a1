//! The pictures: a line for each relay, over the number of streams.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::combinators::BindKeyPoints as _;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

use crate::rows::Row;

/// Loss in percent, median of the repeats.
pub(crate) fn loss(rows: &[Row]) -> Result<String> {
    let loss = |row: &Row| row.median(|repeat| Some(repeat.run.loss_percent()));
    let lines = lines(rows.iter().filter(|row| !row.is_bare()), loss);
    let top = highest(&lines).max(1.0);
    draw("Loss, median of the runs (%)", &lines, -top / 50.0..top * 1.05)
}

/// Packets a second that arrived, in thousands: what is left of the load when the relay has taken its
/// share of the CPUs and lost what it loses. The bare path is the top.
pub(crate) fn rate(rows: &[Row]) -> Result<String> {
    let lines =
        lines(rows.iter(), |row| row.median(|repeat| Some(repeat.run.delivered_rate() / 1000.0)));
    let top = highest(&lines).max(1.0);
    draw("Packets a second that arrived (thousands), median of the runs", &lines, 0.0..top * 1.4)
}

/// CPU for each packet, in microseconds: of the whole machine, without that of the bare path.
pub(crate) fn cpu(rows: &[Row]) -> Result<String> {
    let relays = rows.iter().filter(|row| !row.is_bare());
    let lines = lines(relays, |row| row.added_cpu().filter(|added| *added > 0.0));
    let (lowest, highest) = (lowest(&lines).min(1.0), highest(&lines).max(10.0));
    draw(
        "CPU a packet, of the whole machine beyond the bare path (µs, logarithmic)",
        &lines,
        (lowest / 1.5..highest * 6.0).log_scale(),
    )
}

/// Points of one relay: streams, value. There may be none: a short run can cost less than the bare
/// path's runs differ.
struct Line {
    relay: String,
    points: Vec<(f64, f64)>,
}

fn lines<'r>(
    rows: impl Iterator<Item = &'r Row>,
    value: impl Fn(&Row) -> Option<f64>,
) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for row in rows.filter(|row| row.in_series) {
        let point = value(row).map(|value| (row.streams as f64, value));
        match lines.iter_mut().find(|line| line.relay == row.relay) {
            Some(line) => line.points.extend(point),
            None => {
                let points = point.into_iter().collect();
                lines.push(Line { relay: row.relay.clone(), points });
            }
        }
    }
    lines
}

fn values(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines.iter().flat_map(|line| &line.points).map(|point| point.1)
}

fn highest(lines: &[Line]) -> f64 {
    values(lines).fold(0.0, f64::max)
}

fn lowest(lines: &[Line]) -> f64 {
    values(lines).fold(f64::INFINITY, f64::min)
}

fn draw<Y>(title: &str, lines: &[Line], y: Y) -> Result<String>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (800, 420)).into_drawing_area();
    // The errors of plotters borrow the drawing area.
    paint(&area, title, lines, y).map_err(|error| anyhow!("drawing '{title}': {error}"))?;
    drop(area);
    Ok(svg)
}

fn paint<Y>(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    lines: &[Line],
    y: Y,
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    area.fill(&WHITE)?;
    let counts = counts(lines);
    let fewest = counts.first().copied().unwrap_or(1.0);
    let most = counts.last().copied().unwrap_or(508.0);
    let streams = (fewest / 1.1..most * 1.1).log_scale().with_key_points(ticks(&counts));
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(56)
        .build_cartesian_2d(streams, y)?;
    chart
        .configure_mesh()
        .x_desc("streams (logarithmic)")
        .x_label_formatter(&|x| format!("{x:.0}"))
        // The steps of the axis are sums: 0.1 three times is 0.30000000000000004.
        .y_label_formatter(&|y| format!("{}", (y * 1e6).round() / 1e6))
        .light_line_style(WHITE)
        .draw()?;
    for line in lines {
        let color = color(&line.relay);
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)))?
            .label(if line.points.is_empty() {
                format!("{} (nothing measurable)", line.relay)
            } else {
                line.relay.clone()
            })
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        let dots = line.points.iter().map(|point| Circle::new(*point, 3, color.filled()));
        chart.draw_series(dots)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()
}

/// The stream counts, in order.
fn counts(lines: &[Line]) -> Vec<f64> {
    let points = lines.iter().flat_map(|line| &line.points);
    let mut counts = points.map(|point| point.0).collect::<Vec<_>>();
    counts.sort_by(f64::total_cmp);
    counts.dedup();
    counts
}

/// Those of the counts whose labels have room on the axis.
fn ticks(counts: &[f64]) -> Vec<f64> {
    let range = (1.1 * 1.1 * counts.last().unwrap_or(&1.0) / counts.first().unwrap_or(&1.0)).ln();
    let mut ticks: Vec<f64> = Vec::new();
    for count in counts {
        if ticks.last().is_none_or(|last| (count / last).ln() > range / LABELS) {
            ticks.push(*count);
        }
    }
    ticks
}

/// Labels of three digits that fit the axis side by side.
const LABELS: f64 = 25.0;

/// The color of a relay, the same in every picture.
fn color(relay: &str) -> RGBColor {
    match relay {
        "ebpf" => RGBColor(0, 114, 178),
        "packet" => RGBColor(0, 158, 115),
        "socat" => RGBColor(213, 94, 0),
        _ => RGBColor(120, 120, 120),
    }
}
