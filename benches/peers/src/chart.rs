//! One workload as bars: a group for each figure, the better ones above.

use std::fmt::Write;

use crate::engines::{self, Kind};
use crate::report::{Measured, figure};
use crate::workloads::Better;

const WIDTH: f64 = 860.0;
/// Where the bars begin, and the longest of them.
const LEFT: f64 = 190.0;
const LONGEST: f64 = 520.0;
const ROW: f64 = 20.0;

pub(crate) fn svg(measured: &Measured) -> String {
    let mut body = String::new();
    let mut y = 34.0;
    for metric in measured.workload.metrics {
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
        let title = escaped(&format!("{}, {} ({direction})", metric.title, metric.unit));
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
    let height = y + 14.0;
    let title = escaped(&format!("{}: {}", measured.workload.name, measured.workload.title));
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
