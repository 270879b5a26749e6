//! The picture of a simulation: arrivals, backlog, replicas and wait over time, the shop's rule and one rival, as SVG.

use plotters::{
    coord::Shift,
    drawing::DrawingAreaErrorKind,
    prelude::{
        BLACK, Cartesian2d, ChartBuilder, ChartContext, DashedLineSeries, DrawingArea, IntoDrawingArea, IntoFont,
        LineSeries, PathElement, RGBColor, SVGBackend, Text, WHITE,
    },
    style::{Color, ShapeStyle},
};

use super::{
    run::{Outcome, Point},
    trace::Trace,
};

type Error = DrawingAreaErrorKind<std::io::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (1000, 1000);
const HEAD: u32 = 70;
const FONT: &str = "sans-serif";
// Told apart also by who sees no red or green.
const OURS: RGBColor = RGBColor(0, 114, 178);
const THEIRS: RGBColor = RGBColor(213, 94, 0);
const LOAD: RGBColor = RGBColor(110, 110, 110);

/// What is drawn.
pub struct Picture<'a> {
    pub title: String,
    pub trace: &'a Trace,
    pub ours: &'a Outcome,
    pub rival: &'a Outcome,
    /// Seconds that a message should not wait longer than.
    pub target: f64,
}

impl Picture<'_> {
    /// The SVG's text.
    pub fn draw(&self) -> Result<String, String> {
        let mut svg = String::new();
        self.draw_into(&SVGBackend::with_string(&mut svg, SIZE).into_drawing_area())
            .map_err(|error| error.to_string())?;
        Ok(svg)
    }

    fn draw_into(&self, page: &Area<'_>) -> Result<(), Error> {
        page.fill(&WHITE)?;
        let (head, body) = page.split_vertically(HEAD);
        self.head(&head)?;
        let panels = body.split_evenly((4, 1));
        let [arrivals, backlog, replicas, wait] = &panels[..] else { return Ok(()) };
        self.arrivals(arrivals)?;
        self.both(backlog, "messages waiting", |point| point.backlog)?;
        self.both(replicas, "workers", |point| point.replicas)?;
        let mut chart = self.both(wait, "oldest wait (s)", |point| point.wait)?;
        let line = [(0.0, self.target), (self.minutes(), self.target)];
        chart.draw_series(DashedLineSeries::new(line, 6, 4, BLACK.stroke_width(1)))?;
        page.present()
    }

    fn head(&self, area: &Area<'_>) -> Result<(), Error> {
        area.draw(&Text::new(self.title.clone(), (75, 12), (FONT, 18)))?;
        let legend =
            [(OURS, self.ours.rule.as_str()), (THEIRS, &self.rival.rule), (LOAD, "arrivals"), (BLACK, "target wait")];
        let mut x = 75;
        for (color, name) in legend {
            let style = color.stroke_width(if color == BLACK { 1 } else { 3 });
            area.draw(&PathElement::new([(x, 50), (x + 28, 50)], style))?;
            area.draw(&Text::new(name.to_owned(), (x + 36, 43), (FONT, 14)))?;
            x += 60 + 9 * i32::try_from(name.chars().count()).unwrap_or(0);
        }
        Ok(())
    }

    fn arrivals(&self, area: &Area<'_>) -> Result<(), Error> {
        let mut counts: Vec<_> = self.trace.arrivals().into_iter().map(f64::from).collect();
        counts.resize(self.ours.series.len(), 0.0);
        let mut chart = self.chart(area, "arrivals per second", top(&counts))?;
        chart.draw_series(LineSeries::new(over_time(&counts), LOAD.stroke_width(1))).map(drop)
    }

    /// The shop's line over the rival's.
    fn both<'a>(
        &self,
        area: &Area<'a>,
        name: &str,
        value: fn(&Point) -> f64,
    ) -> Result<ChartContext<'a, SVGBackend<'a>, Cartesian2d<Seconds, Seconds>>, Error> {
        let [theirs, ours] =
            [self.rival, self.ours].map(|outcome| outcome.series.iter().map(value).collect::<Vec<_>>());
        let mut chart = self.chart(area, name, top(&theirs).max(top(&ours)))?;
        for (values, color) in [(theirs, THEIRS), (ours, OURS)] {
            let style: ShapeStyle = color.stroke_width(2);
            chart.draw_series(LineSeries::new(over_time(&values), style))?;
        }
        Ok(chart)
    }

    fn chart<'a>(
        &self,
        area: &Area<'a>,
        name: &str,
        top: f64,
    ) -> Result<ChartContext<'a, SVGBackend<'a>, Cartesian2d<Seconds, Seconds>>, Error> {
        let mut chart = ChartBuilder::on(area)
            .margin_left(10)
            .margin_right(25)
            .margin_top(12)
            .x_label_area_size(42)
            .y_label_area_size(75)
            .build_cartesian_2d(0.0..self.minutes(), 0.0..top)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("minutes")
            .y_desc(name)
            .axis_desc_style((FONT, 14).into_font())
            .label_style((FONT, 12).into_font())
            .x_label_formatter(&|minutes| format!("{minutes:.0}"))
            .y_label_formatter(&|value| if top < 5.0 { format!("{value:.1}") } else { format!("{value:.0}") })
            .y_labels(6)
            .draw()?;
        Ok(chart)
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds of a simulation")]
    fn minutes(&self) -> f64 {
        self.ours.series.len() as f64 / 60.0
    }
}

type Seconds = plotters::coord::types::RangedCoordf64;

/// A little above the highest, so that its line is seen.
fn top(values: &[f64]) -> f64 {
    values.iter().copied().fold(1.0, f64::max) * 1.05
}

/// Values of every second over minutes, as steps.
#[expect(clippy::cast_precision_loss, reason = "seconds of a simulation")]
fn over_time(values: &[f64]) -> impl Iterator<Item = (f64, f64)> {
    let steps = values.iter().enumerate();
    steps.flat_map(|(second, value)| [(second as f64 / 60.0, *value), ((second + 1) as f64 / 60.0, *value)])
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            run::{compare, tests::setup},
            trace::{Shape, tests::SCALE},
        },
        *,
    };

    #[test]
    fn a_picture_has_its_axes_its_legend_and_a_line_for_each() {
        let trace = Trace::generate(Shape::Burst, 1, SCALE).unwrap();
        let outcomes = compare(&setup(), &trace);
        let picture = Picture {
            title: "demo: burst".to_owned(),
            trace: &trace,
            ours: &outcomes[0],
            rival: &outcomes[1],
            target: 10.0,
        };
        let svg = picture.draw().unwrap();
        for text in [
            "demo: burst",
            "shop",
            "keda queueLength 1",
            "target wait",
            "arrivals per second",
            "messages waiting",
            "workers",
            "oldest wait (s)",
            "minutes",
        ] {
            assert!(svg.contains(&format!("\n{text}\n")), "{text}");
        }
        let lines = |color: &str| svg.matches(&format!("stroke=\"{color}\" stroke-width=\"2\"")).count();
        assert_eq!((lines("#0072B2"), lines("#D55E00")), (3, 3));
    }
}
