//! One workload as bars: a group for each figure, the better ones above. Growth as lines over the number of records.

use std::fmt::Write;

use crate::engines::{self, Kind, Res};
use crate::measured::Measured;
use crate::report::{figure, grouped, titled};
use crate::workloads::{Better, GROWTH_SIZES};

const WIDTH: f64 = 860.0;
/// Where the bars begin, and the longest of them.
const LEFT: f64 = 190.0;
const LONGEST: f64 = 520.0;
const ROW: f64 = 20.0;

pub(crate) fn bars(measured: &Measured) -> Res<String> {
    let workload = measured.of()?;
    let mut body = String::new();
    let mut y = 34.0;
    for metric in workload.metrics {
        let mut bars: Vec<_> = engines::all()
            .into_iter()
            .filter_map(|entry| Some((entry, measured.spread(entry.name, metric.key)?)))
            .collect();
        let Some(most) = bars.iter().map(|(_, spread)| spread.most).max_by(f64::total_cmp) else {
            continue;
        };
        bars.sort_by(|(_, a), (_, b)| match metric.better {
            Better::More => b.median.total_cmp(&a.median),
            Better::Less => a.median.total_cmp(&b.median),
        });
        y += 26.0;
        let direction = if metric.better == Better::More { "more is better" } else { "less is better" };
        let title =
            escaped(&format!("{}, {} ({direction})", titled(metric.title, measured), titled(metric.unit, measured)));
        let _ = writeln!(body, r#"<text x="10" y="{y}" class="h">{title}</text>"#);
        y += 8.0;
        for (entry, spread) in bars {
            let length = |value: f64| if most > 0.0 { (value / most).clamp(0.0, 1.0) * LONGEST } else { 0.0 };
            let colour = match entry.kind {
                Kind::Ours => "#c2410c",
                Kind::Store => "#64748b",
                Kind::Log => "#94a3b8",
                Kind::Limit => "#cbd5e1",
            };
            let (bar, least, longest) =
                (length(spread.median), LEFT + length(spread.least), LEFT + length(spread.most));
            let (middle, base, end) = (y + 8.0, y + 12.0, longest.max(LEFT + bar) + 6.0);
            let name = escaped(entry.title);
            let value = figure(spread.median);
            let _ = writeln!(body, r#"<text x="{:.1}" y="{base:.1}" text-anchor="end">{name}</text>"#, LEFT - 6.0);
            let _ = writeln!(body, r#"<rect x="{LEFT}" y="{y:.1}" width="{bar:.1}" height="15" fill="{colour}"/>"#);
            let _ = writeln!(body, r##"<path d="M{least:.1} {middle:.1}H{longest:.1}" stroke="#111"/>"##);
            let _ = writeln!(body, r#"<text x="{end:.1}" y="{base:.1}">{value}</text>"#);
            y += ROW;
        }
    }
    Ok(picture(y + 14.0, &format!("{}: {}", workload.name, workload.title), &body))
}

/// Three panels, each with a line of dictdb and one of the map: records on a logarithmic axis, rates from 0.
pub(crate) fn growth(measured: &Measured) -> String {
    const PANELS: [(&str, &str); 3] = [
        ("insert", "inserts, one a commit, records/s"),
        ("read", "random reads, decoded, reads/s"),
        ("open", "from a process's start to the first read of a snapshot, records/s"),
    ];
    const HEIGHT: f64 = 170.0;
    let mut body = String::new();
    let mut top = 50.0;
    for (key, title) in PANELS {
        let of = |engine: &str| -> Vec<(f64, f64)> {
            let sizes = GROWTH_SIZES.iter();
            let found =
                sizes.filter_map(|(size, times)| Some((times, measured.spread(engine, &format!("{key}_{size}"))?)));
            found.map(|(times, spread)| (measured.records as f64 * times, spread.median)).collect()
        };
        let lines =
            [("dictdb", "#c2410c"), ("btreemap", "#64748b")].map(|(engine, colour)| (engine, colour, of(engine)));
        let Some(most) = lines.iter().flat_map(|(_, _, line)| line).map(|(_, rate)| *rate).max_by(f64::total_cmp)
        else {
            continue;
        };
        let (first, last) = (measured.records as f64 * 0.1, measured.records as f64 * 20.0);
        let x = |records: f64| 60.0 + (records / first).ln() / (last / first).ln() * 640.0;
        let y = |rate: f64| top + 24.0 + (1.0 - rate / most) * (HEIGHT - 60.0);
        let _ = writeln!(body, r#"<text x="10" y="{top}" class="h">{}</text>"#, escaped(title));
        let base = y(0.0);
        let _ = writeln!(body, r##"<path d="M60 {base:.1}H760" stroke="#94a3b8"/>"##);
        for (_, times) in GROWTH_SIZES {
            let records = measured.records as f64 * times;
            let (at, below) = (x(records), base + 16.0);
            let _ =
                writeln!(body, r#"<text x="{at:.1}" y="{below:.1}" text-anchor="middle">{}</text>"#, grouped(records));
        }
        for (engine, colour, line) in lines {
            let points: Vec<String> = line.iter().map(|&(n, rate)| format!("{:.1},{:.1}", x(n), y(rate))).collect();
            let _ = writeln!(
                body,
                r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
                points.join(" ")
            );
            for &(n, rate) in &line {
                let (at, above) = (x(n), y(rate) - 6.0);
                let value = figure(rate);
                let _ = writeln!(
                    body,
                    r#"<text x="{at:.1}" y="{above:.1}" text-anchor="middle" fill="{colour}">{value}</text>"#
                );
            }
            if let Some(&(n, rate)) = line.last() {
                let (at, middle) = (x(n) + 40.0, y(rate) + 4.0);
                let _ = writeln!(body, r#"<text x="{at:.1}" y="{middle:.1}" style="fill:{colour}">{engine}</text>"#);
            }
        }
        top += HEIGHT;
    }
    picture(top, "growth: as a table of small records grows", &body)
}

fn picture(height: f64, title: &str, body: &str) -> String {
    let title = escaped(title);
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">
<style>text{{font:12px sans-serif;fill:#111}}.h{{font-weight:bold}}.t{{font-size:15px;font-weight:bold}}</style>
<rect width="100%" height="100%" fill="#fff"/>
<text x="10" y="24" class="t">{title}</text>
{body}</svg>
"##
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
