//! Owns what a script's requests are called in reports: a route a name. Sends nothing.

use super::script::{Engine, Script, Step};
use crate::report::{MOST_ROUTES, OTHER_ROUTE};

/// What goes over WebSockets is one route.
const WEBSOCKET: &str = "WebSocket";

/// The routes of a script.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    /// Their names, each once.
    pub(crate) names: Vec<String>,
    /// That of WebSockets, if there are any.
    pub(crate) websocket: usize,
}

impl Routes {
    /// Gives each request of the scenarios its route: its `name`, else its method and URL as they stand in the script; a
    /// gRPC call's is its service and method.
    pub(crate) fn number(script: &mut Script) -> Routes {
        let mut routes = Routes::default();
        for scenario in &mut script.scenarios {
            if scenario.engine == Engine::Ws {
                routes.websocket = routes.named(WEBSOCKET.to_owned());
            }
            routes.flow(&mut scenario.flow);
        }
        routes
    }

    fn flow(&mut self, steps: &mut [Step]) {
        for step in steps {
            match step {
                Step::Request(request) => {
                    let name = request.name.clone().filter(|name| !name.is_empty());
                    request.route = self.named(
                        name.unwrap_or_else(|| format!("{} {}", request.method, request.url)),
                    );
                }
                Step::Grpc(call) => call.route = self.named(call.method.clone()),
                Step::Loop(inner) => self.flow(&mut inner.steps),
                Step::Parallel { steps, .. } => self.flow(steps),
                Step::Think { .. } | Step::Log(_) | Step::Ws(_) | Step::Function(_) => {}
            }
        }
    }

    fn named(&mut self, name: String) -> usize {
        if let Some(known) = self.names.iter().position(|n| *n == name) {
            return known;
        }
        if self.names.len() >= MOST_ROUTES - 1 && name != OTHER_ROUTE {
            return self.named(OTHER_ROUTE.to_owned());
        }
        self.names.push(name);
        self.names.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::{ReadOptions, read_tree};
    use super::super::tree;
    use super::*;

    fn numbered(text: &str) -> (Routes, Script) {
        let root = tree::parse("s.yml", text).unwrap();
        let mut script = read_tree(root, &ReadOptions::default()).unwrap();
        (Routes::number(&mut script), script)
    }

    #[test]
    fn requests_of_one_name_are_one_route_wherever_they_stand() {
        let (routes, script) = numbered(
            "config: {target: 'http://127.0.0.1', phases: [{duration: 1, arrivalRate: 1}]}
before: {flow: [{get: {url: /token}}]}
scenarios:
  - flow:
      - get: {url: /cart}
      - think: 1
      - loop: [{post: {url: '/cart/{{ id }}', name: ''}}, {get: {url: /x, name: the x}}]
        count: 2
  - flow:
      - parallel: [{get: {url: /cart}}, {get: {url: /y, name: the x}}]
",
        );
        assert_eq!(routes.names, ["GET /cart", "POST /cart/{{ id }}", "the x"]);
        let Step::Parallel { steps, .. } = &script.scenarios[1].flow[0] else {
            panic!("{:?}", script.scenarios[1].flow);
        };
        let route = |step: &Step| match step {
            Step::Request(request) => request.route,
            other => panic!("{other:?}"),
        };
        assert_eq!([route(&steps[0]), route(&steps[1])], [0, 2]);
    }

    #[test]
    fn beyond_so_many_they_are_others() {
        let mut routes = Routes::default();
        let numbers: Vec<usize> = (0..150)
            .map(|i| routes.named(format!("GET /{i}")))
            .collect();
        assert_eq!((numbers[62], numbers[63], numbers[149]), (62, 63, 63));
        assert_eq!((routes.names.len(), &routes.names[63][..]), (64, "other"));
        assert_eq!(routes.named("GET /7".to_owned()), 7);
    }

    #[test]
    fn what_goes_over_websockets_is_one_route() {
        let (routes, _) = numbered(
            "config: {target: 'http://127.0.0.1', phases: [{duration: 1, arrivalRate: 1}]}
scenarios:
  - flow: [{get: {url: /}}]
  - {engine: ws, flow: [{send: a}, {send: b}]}
",
        );
        assert_eq!(
            (routes.names, routes.websocket),
            (vec!["GET /".to_owned(), WEBSOCKET.to_owned()], 1)
        );
    }
}
