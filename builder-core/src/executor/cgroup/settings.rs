//! [`Settings`]: the files of the controllers, and what is written to them.

use crate::executor::Limits;

/// Files and values for the limits.
pub(super) struct Settings {
    /// Controller, file in v1, value there, file in v2, value there. An empty file name has no counterpart.
    rows: Vec<Row>,
}

struct Row {
    controller: &'static str,
    v1: (&'static str, String),
    v2: (&'static str, String),
}

impl Settings {
    pub(super) fn new(limits: &Limits) -> Self {
        let mut rows = Vec::new();
        let mut add = |controller, v1, v1_value: String, v2, v2_value: String| {
            rows.push(Row { controller, v1: (v1, v1_value), v2: (v2, v2_value) });
        };
        if let Some(memory) = limits.memory {
            add("memory", "memory.limit_in_bytes", memory.to_string(), "memory.max", memory.to_string());
        }
        if let Some(both) = limits.memory_swap {
            let swap = u64::try_from(both).map(|both| both.saturating_sub(limits.memory.unwrap_or(0)));
            let swap = swap.map_or_else(|_| "max".to_owned(), |swap| swap.to_string());
            add("memory", "memory.memsw.limit_in_bytes", both.to_string(), "memory.swap.max", swap);
        }
        if let Some(shares) = limits.cpu_shares {
            // 2..=262144 onto 1..=10000, as in the OCI runtime specification.
            let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
            add("cpu", "cpu.shares", shares.to_string(), "cpu.weight", weight.to_string());
        }
        if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
            let period = limits.cpu_period.unwrap_or(100_000);
            let quota = limits.cpu_quota.map(|quota| quota.to_string());
            let v2 = format!("{} {period}", quota.as_deref().unwrap_or("max"));
            add("cpu", "cpu.cfs_period_us", period.to_string(), "", String::new());
            add("cpu", "cpu.cfs_quota_us", quota.unwrap_or_else(|| "-1".to_owned()), "cpu.max", v2);
        }
        for (file, list) in [("cpuset.cpus", &limits.cpuset_cpus), ("cpuset.mems", &limits.cpuset_mems)] {
            if let Some(list) = list {
                add("cpuset", file, list.clone(), file, list.clone());
            }
        }
        if let Some(pids) = limits.pids {
            add("pids", "pids.max", pids.to_string(), "pids.max", pids.to_string());
        }
        Self { rows }
    }

    /// Each once.
    pub(super) fn controllers(&self) -> Vec<&'static str> {
        let mut controllers: Vec<_> = self.rows.iter().map(|row| row.controller).collect();
        controllers.dedup();
        controllers
    }

    pub(super) fn v1<'a>(&'a self, controller: &'a str) -> impl Iterator<Item = (&'static str, String)> + 'a {
        self.rows.iter().filter(move |row| row.controller == controller).map(|row| row.v1.clone())
    }

    pub(super) fn v2<'a>(&'a self, controllers: &'a [&str]) -> impl Iterator<Item = (String, String)> + 'a {
        let used = |row: &&Row| controllers.contains(&row.controller) && !row.v2.0.is_empty();
        self.rows.iter().filter(used).map(|row| (row.v2.0.to_owned(), row.v2.1.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_files_of_either_version() {
        let limits = Limits {
            memory: Some(100),
            memory_swap: Some(150),
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            pids: Some(7),
            ..Limits::default()
        };
        let settings = Settings::new(&limits);
        assert_eq!(settings.controllers(), ["memory", "cpu", "pids"]);
        let v2: Vec<_> =
            settings.v2(&["memory", "cpu", "pids"]).map(|(file, value)| format!("{file}={value}")).collect();
        assert_eq!(v2, ["memory.max=100", "memory.swap.max=50", "cpu.weight=39", "cpu.max=50000 100000", "pids.max=7"]);
        let v1: Vec<_> = settings.v1("cpu").map(|(file, value)| format!("{file}={value}")).collect();
        assert_eq!(v1, ["cpu.shares=1024", "cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000"]);
    }
}
