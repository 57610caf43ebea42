//! Numbers about this process for Prometheus: counters, gauges and histograms with labels.
//!
//! The text format is version 0.0.4, as Kubernetes' components serve it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// `Content-Type` of [`Registry::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds, in seconds, that suit requests.
pub const REQUEST_SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// Series of one metric; label values beyond that are counted under [`OVERFLOW`].
const MAX_SERIES: usize = 2000;
/// Label value of what did not fit.
const OVERFLOW: &str = "other";

/// All metrics of a process. Clones share them.
#[derive(Clone, Default)]
pub struct Registry {
    families: Arc<Mutex<BTreeMap<&'static str, Arc<Family>>>>,
}

struct Family {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    kind: Kind,
    series: Mutex<BTreeMap<Vec<String>, Arc<Series>>>,
    read: Option<Box<dyn Fn() -> f64 + Send + Sync>>,
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

/// A number, or a histogram's buckets with the sum in `value`.
struct Series {
    value: Number,
    buckets: Vec<AtomicU64>,
}

/// An `f64` in an atomic.
#[derive(Default)]
struct Number(AtomicU64);

impl Number {
    fn load(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn store(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    fn add(&self, value: f64) {
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // The closure never declines.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

/// A counter by label values.
#[derive(Clone)]
pub struct Counters(Arc<Family>);

/// One counter; keep it where it is counted often.
#[derive(Clone)]
pub struct Counter(Arc<Series>);

/// A gauge by label values.
#[derive(Clone)]
pub struct Gauges(Arc<Family>);

/// One gauge.
#[derive(Clone)]
pub struct Gauge(Arc<Series>);

/// A histogram by label values.
#[derive(Clone)]
pub struct Histograms(Arc<Family>);

/// One histogram.
#[derive(Clone)]
pub struct Histogram {
    series: Arc<Series>,
    bounds: &'static [f64],
}

impl Registry {
    /// A registry without metrics.
    pub fn new() -> Self {
        Self::default()
    }

    /// A counter. Asking again for the same name returns the same metric, whose help and labels stay as they were.
    pub fn counters(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Counters {
        Counters(self.family(name, help, labels, Kind::Counter, None))
    }

    /// A gauge; see [`Registry::counters`].
    pub fn gauges(&self, name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Gauges {
        Gauges(self.family(name, help, labels, Kind::Gauge, None))
    }

    /// A gauge without labels that is read when somebody asks.
    pub fn gauge_of(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        self.family(name, help, &[], Kind::Gauge, Some(Box::new(read)));
    }

    /// A histogram with ascending upper bounds; see [`Registry::counters`].
    pub fn histograms(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        bounds: &'static [f64],
    ) -> Histograms {
        Histograms(self.family(name, help, labels, Kind::Histogram(bounds), None))
    }

    fn family(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        kind: Kind,
        read: Option<Box<dyn Fn() -> f64 + Send + Sync>>,
    ) -> Arc<Family> {
        let new = || Arc::new(Family { name, help, labels, kind, series: Mutex::default(), read });
        self.families.lock().entry(name).or_insert_with(new).clone()
    }

    /// Everything as text, sorted by name.
    pub fn render(&self) -> String {
        let families: Vec<_> = self.families.lock().values().cloned().collect();
        let mut text = String::new();
        families.iter().for_each(|family| family.render(&mut text));
        text
    }
}

impl Counters {
    /// The counter of these label values, in the order of the labels.
    pub fn with(&self, values: &[&str]) -> Counter {
        Counter(self.0.series(values))
    }
}

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.value.add(count as f64);
    }
}

impl Gauges {
    /// The gauge of these label values, in the order of the labels.
    pub fn with(&self, values: &[&str]) -> Gauge {
        Gauge(self.0.series(values))
    }
}

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.value.store(value);
    }

    /// Adds, or takes away.
    pub fn add(&self, value: f64) {
        self.0.value.add(value);
    }

    /// Counts one up until what it returns is dropped.
    pub fn hold(&self) -> Held {
        self.add(1.0);
        Held(self.clone())
    }
}

/// One unit of a [`Gauge`], taken back when dropped.
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

impl Histograms {
    /// The histogram of these label values, in the order of the labels.
    pub fn with(&self, values: &[&str]) -> Histogram {
        let bounds = match self.0.kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Counter | Kind::Gauge => &[],
        };
        Histogram { series: self.0.series(values), bounds }
    }
}

impl Histogram {
    /// Counts an observation.
    pub fn observe(&self, value: f64) {
        let index = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.series.buckets.get(index) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.series.value.add(value);
    }
}

impl Family {
    fn series(&self, values: &[&str]) -> Arc<Series> {
        let mut all = self.series.lock();
        let mut key: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        key.resize(self.labels.len(), String::new());
        if !all.contains_key(&key) && all.len() >= MAX_SERIES {
            key.fill(OVERFLOW.to_owned());
        }
        all.entry(key).or_insert_with(|| Arc::new(self.new_series())).clone()
    }

    fn new_series(&self) -> Series {
        let buckets = match self.kind {
            Kind::Histogram(bounds) => bounds.len() + 1,
            Kind::Counter | Kind::Gauge => 0,
        };
        Series { value: Number::default(), buckets: (0..buckets).map(|_| AtomicU64::new(0)).collect() }
    }

    fn render(&self, text: &mut String) {
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        put(
            text,
            format_args!("# HELP {} {}\n# TYPE {} {kind}\n", self.name, escape_help(self.help), self.name),
        );
        if let Some(read) = &self.read {
            put(text, format_args!("{} {}\n", self.name, number(read())));
            return;
        }
        for (values, series) in self.series.lock().iter() {
            let labels = self.label_text(values);
            match self.kind {
                Kind::Counter | Kind::Gauge => {
                    put(
                        text,
                        format_args!("{}{} {}\n", self.name, braced(&labels), number(series.value.load())),
                    );
                }
                Kind::Histogram(bounds) => self.render_histogram(text, &labels, bounds, series),
            }
        }
    }

    fn render_histogram(&self, text: &mut String, labels: &str, bounds: &[f64], series: &Series) {
        let separator = if labels.is_empty() { "" } else { "," };
        let names = bounds.iter().map(|bound| number(*bound)).chain(["+Inf".to_owned()]);
        let mut count = 0;
        for (bound, bucket) in names.zip(&series.buckets) {
            count += bucket.load(Ordering::Relaxed);
            put(text, format_args!("{}_bucket{{{labels}{separator}le=\"{bound}\"}} {count}\n", self.name));
        }
        put(text, format_args!("{}_sum{} {}\n", self.name, braced(labels), number(series.value.load())));
        put(text, format_args!("{}_count{} {count}\n", self.name, braced(labels)));
    }

    fn label_text(&self, values: &[String]) -> String {
        let pairs = self.labels.iter().zip(values);
        pairs.map(|(name, value)| format!("{name}=\"{}\"", escape_value(value))).collect::<Vec<_>>().join(",")
    }
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(arguments);
}

fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".into(),
        value if value == f64::INFINITY => "+Inf".into(),
        value if value == f64::NEG_INFINITY => "-Inf".into(),
        value => value.to_string(),
    }
}

fn escape_help(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

fn escape_value(text: &str) -> String {
    escape_help(text).replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_as_prometheus_reads() {
        let registry = Registry::new();
        let requests = registry.counters("requests_total", "All\nof them.", &["verb", "path"]);
        requests.with(&["GET", "/\"a\\b\"\n"]).increment();
        requests.with(&["GET", "/"]).add(2);
        registry.counters("requests_total", "Again.", &["verb"]).with(&["GET", "/"]).increment();
        let held = registry.gauges("open", "Open.", &[]).with(&[]).hold();
        registry.gauge_of("answer", "Read.", || 42.5);
        let seconds = registry.histograms("seconds", "Time.", &["verb"], &[0.1, 1.0]);
        for value in [0.05, 0.1, 0.5, 5.0] {
            seconds.with(&["GET"]).observe(value);
        }
        let expected = "\
# HELP answer Read.
# TYPE answer gauge
answer 42.5
# HELP open Open.
# TYPE open gauge
open 1
# HELP requests_total All\\nof them.
# TYPE requests_total counter
requests_total{verb=\"GET\",path=\"/\"} 3
requests_total{verb=\"GET\",path=\"/\\\"a\\\\b\\\"\\n\"} 1
# HELP seconds Time.
# TYPE seconds histogram
seconds_bucket{verb=\"GET\",le=\"0.1\"} 2
seconds_bucket{verb=\"GET\",le=\"1\"} 3
seconds_bucket{verb=\"GET\",le=\"+Inf\"} 4
seconds_sum{verb=\"GET\"} 5.65
seconds_count{verb=\"GET\"} 4
";
        assert_eq!(registry.render(), expected);
        drop(held);
        assert!(registry.render().contains("\nopen 0\n"));
    }

    #[test]
    fn series_are_bounded_and_the_rest_is_visible() {
        let registry = Registry::new();
        let counters = registry.counters("c", "C.", &["name"]);
        for index in 0..MAX_SERIES + 5 {
            counters.with(&[&index.to_string()]).increment();
        }
        assert!(registry.render().contains("c{name=\"other\"} 5\n"));
    }
}
