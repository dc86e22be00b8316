//! Finds circles (cycles) in a graph, such as jobs that need each other.
//!
//! Johnson's algorithm finds every elementary circle once, up to a bound. It searches from the lowest node of each
//! strongly connected component, and then removes that node. The time for each circle is linear in the size of the
//! graph. There is no recursion, because a circle may be as long as the list of jobs.

/// The circles of a graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Circles {
    /// The nodes of each circle, the lowest node first. At most `most` circles, as in [`circles`].
    pub(crate) found: Vec<Vec<usize>>,
    /// Whether the graph has more circles.
    pub(crate) more: bool,
}

/// Up to `most` circles of the graph in which node `i` leads to each of `leads[i]`.
pub(crate) fn circles(leads: &[Vec<usize>], most: usize) -> Circles {
    let mut gone = vec![false; leads.len()];
    let mut circles = Circles::default();
    loop {
        // Chooses the component with the lowest node among the components that have a circle.
        let parts = parts(leads, &gone);
        let in_circle = |part: &[usize]| match part {
            [one] => leads[*one].contains(one),
            many => many.len() > 1,
        };
        let part = parts.into_iter().filter(|part| in_circle(part)).min_by_key(|part| lowest(part));
        let Some(part) = part else { return circles };
        if circles.found.len() >= most {
            circles.more = true;
            return circles;
        }
        let start = lowest(&part);
        let mut inside = vec![false; leads.len()];
        for node in part {
            inside[node] = true;
        }
        through(leads, start, &inside, most, &mut circles);
        if circles.more {
            return circles;
        }
        gone[start] = true;
    }
}

fn lowest(part: &[usize]) -> usize {
    part.iter().copied().min().unwrap_or(usize::MAX)
}

/// Adds the circles through `start` whose nodes are all in `inside`.
fn through(
    leads: &[Vec<usize>],
    start: usize,
    inside: &[bool],
    most: usize,
    circles: &mut Circles,
) {
    // A node is blocked while it is on the path. It stays blocked if no circle was found from it, until a node that it
    // leads to is unblocked.
    let mut blocked = vec![false; leads.len()];
    let mut frees: Vec<Vec<usize>> = vec![Vec::new(); leads.len()];
    // A node, the index of its next edge, and whether a circle was found through the node.
    let mut path = vec![(start, 0, false)];
    blocked[start] = true;
    while let Some((node, place, closed)) = path.last_mut() {
        if let Some(&next) = leads[*node].get(*place) {
            *place += 1;
            if !inside[next] {
                continue;
            }
            if next == start {
                *closed = true;
                let circle: Vec<usize> = path.iter().map(|(node, ..)| *node).collect();
                // A node may have two edges to the same node, so the same circle may be found twice in a row.
                if circles.found.last() != Some(&circle) {
                    if circles.found.len() >= most {
                        circles.more = true;
                        return;
                    }
                    circles.found.push(circle);
                }
            } else if !blocked[next] {
                blocked[next] = true;
                path.push((next, 0, false));
            }
            continue;
        }
        let (node, closed) = (*node, *closed);
        path.pop();
        if closed {
            let mut free = vec![node];
            while let Some(node) = free.pop() {
                if std::mem::take(&mut blocked[node]) {
                    free.append(&mut frees[node]);
                }
            }
            if let Some((_, _, before)) = path.last_mut() {
                *before = true;
            }
        } else {
            for &next in leads[node].iter().filter(|next| inside[**next]) {
                frees[next].push(node);
            }
        }
    }
}

/// The strongly connected components of the nodes that are not in `gone` (Tarjan's algorithm).
fn parts(leads: &[Vec<usize>], gone: &[bool]) -> Vec<Vec<usize>> {
    const NEW: usize = usize::MAX;
    let (mut number, mut low) = (vec![NEW; leads.len()], vec![NEW; leads.len()]);
    let mut open = vec![false; leads.len()];
    let (mut stack, mut parts, mut count) = (Vec::new(), Vec::new(), 0);
    for root in 0..leads.len() {
        if gone[root] || number[root] != NEW {
            continue;
        }
        let mut path = vec![(root, 0)];
        while let Some((node, place)) = path.last_mut() {
            let node = *node;
            if *place == 0 && number[node] == NEW {
                (number[node], low[node], open[node]) = (count, count, true);
                count += 1;
                stack.push(node);
            }
            if let Some(&next) = leads[node].get(*place) {
                *place += 1;
                if !gone[next] && number[next] == NEW {
                    path.push((next, 0));
                } else if !gone[next] && open[next] {
                    low[node] = low[node].min(number[next]);
                }
                continue;
            }
            path.pop();
            if let Some((before, _)) = path.last() {
                low[*before] = low[*before].min(low[node]);
            }
            if low[node] == number[node] {
                let at = stack.iter().rposition(|other| *other == node).unwrap_or(0);
                let part = stack.split_off(at);
                for node in &part {
                    open[*node] = false;
                }
                parts.push(part);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_circle_is_found_once() {
        for (leads, found) in [
            (vec![], vec![]),
            (vec![vec![1], vec![]], vec![]),
            (vec![vec![0]], vec![vec![0]]),
            // Two circles that are not connected, and a node that leads to both.
            (vec![vec![1], vec![0], vec![3], vec![2], vec![0, 2]], vec![vec![0, 1], vec![2, 3]]),
            // Two circles with a common node.
            (vec![vec![1, 2], vec![0], vec![0]], vec![vec![0, 1], vec![0, 2]]),
            // Two circles with common nodes.
            (vec![vec![1, 2], vec![0], vec![1]], vec![vec![0, 1], vec![0, 2, 1]]),
            // Nodes with two edges to the same node.
            (vec![vec![1, 1], vec![0, 0]], vec![vec![0, 1]]),
        ] {
            assert_eq!(circles(&leads, 10), Circles { found, more: false }, "{leads:?}");
        }
    }

    /// All circles of a small graph, found by trying every path.
    fn tried(leads: &[Vec<usize>]) -> Vec<Vec<usize>> {
        fn go(leads: &[Vec<usize>], path: &mut Vec<usize>, found: &mut Vec<Vec<usize>>) {
            let (first, last) = (path[0], path[path.len() - 1]);
            for &next in &leads[last] {
                if next == first {
                    found.push(path.clone());
                } else if next > first && !path.contains(&next) {
                    path.push(next);
                    go(leads, path, found);
                    path.pop();
                }
            }
        }
        let mut found = Vec::new();
        for start in 0..leads.len() {
            go(leads, &mut vec![start], &mut found);
        }
        found.sort_unstable();
        found
    }

    #[test]
    fn circles_of_all_small_graphs_are_those_that_trying_finds() {
        // Every graph of three nodes, and many of five.
        let graphs = (0_u64..512).map(|bits| (3, bits));
        let more = (0_u64..3000).map(|n| (5, n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 39));
        for (nodes, bits) in graphs.chain(more) {
            let leads: Vec<Vec<usize>> = (0..nodes)
                .map(|a| (0..nodes).filter(|b| bits >> (a * nodes + b) & 1 == 1).collect())
                .collect();
            let all = circles(&leads, 1000);
            let mut found = all.found;
            found.sort_unstable();
            assert_eq!((found, all.more), (tried(&leads), false), "{leads:?}");
            let few = circles(&leads, 2);
            assert!(few.found.len() <= 2);
            assert_eq!(few.more, tried(&leads).len() > 2, "{leads:?}");
        }
    }

    #[test]
    fn a_circle_as_long_as_the_list_needs_no_stack() {
        let nodes = 300_000;
        let leads: Vec<Vec<usize>> = (0..nodes).map(|node| vec![(node + 1) % nodes]).collect();
        assert_eq!(circles(&leads, 5).found, [(0..nodes).collect::<Vec<_>>()]);
    }
}
