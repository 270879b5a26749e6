//! Workers and depth over time, one row for each scaler, as a small SVG. Pure.

use std::fmt::Write;

use super::Run;

const WIDTH: f64 = 760.0;
const ROW: f64 = 150.0;
const LEFT: f64 = 40.0;
const PLOT: f64 = 110.0;

/// One row for each run; all rows have the same scales.
pub fn svg(runs: &[&Run]) -> String {
    let seconds = runs.iter().map(|run| run.seconds).max().map_or(1.0, number);
    let most = runs.iter().flat_map(|run| &run.replicas).map(|value| f64::from(value.count)).fold(1.0, f64::max);
    let deepest = runs.iter().flat_map(|run| &run.depth).map(|depth| number(depth.visible)).fold(1.0, f64::max);
    #[expect(clippy::cast_precision_loss, reason = "a few rows")]
    let height = ROW * runs.len() as f64 + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut top = 0.0;
    for run in runs {
        let base = top + 25.0 + PLOT;
        let x = |at: f64| LEFT + at.clamp(0.0, seconds) / seconds * (WIDTH - LEFT - 10.0);
        let depth = run.depth.iter().filter(|depth| depth.at <= seconds);
        let depth: Vec<_> = depth.map(|it| (x(it.at), base - number(it.visible) / deepest * PLOT)).collect();
        let mut workers = Vec::new();
        let mut last = base;
        for value in run.replicas.iter().filter(|value| value.at <= seconds) {
            let y = base - f64::from(value.count) / most * PLOT;
            workers.extend([(x(value.at), last), (x(value.at), y)]);
            last = y;
        }
        workers.push((x(seconds), last));
        let title = format!(
            "{}, {}: workers (blue, up to {most}), waiting messages (grey, up to {deepest})",
            run.load, run.scaler
        );
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\">{title}</text>", top + 18.0);
        let _ = writeln!(svg, "<path d=\"M{LEFT} {base} H{}\" stroke=\"black\" fill=\"none\"/>", x(seconds));
        let _ =
            writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{seconds} s</text>", x(seconds), base + 13.0);
        line(&mut svg, &depth, "grey");
        line(&mut svg, workers.get(1..).unwrap_or_default(), "blue");
        top += ROW;
    }
    svg + "</svg>\n"
}

fn line(svg: &mut String, points: &[(f64, f64)], colour: &str) {
    let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" stroke=\"{colour}\" stroke-width=\"1.5\" fill=\"none\"/>",
        points.join(" ")
    );
}

#[expect(clippy::cast_precision_loss, reason = "messages, or seconds")]
fn number(count: u64) -> f64 {
    count as f64
}
