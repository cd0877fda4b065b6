#pragma once
// What a measured exchange has to say: a table for people, JSON for programs.

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "runtime/bench/exchange_case.h"
#include "runtime/bench/exchange_measure.h"

namespace cartesian {

struct ExchangeReport {
  std::string transport;  ///< what messages travelled by
  std::string placement;  ///< as it was named
  std::string routing;    ///< where the choices come from
  int threads = 1;
  int repeats = 0;
  bool validated = false;
  PathReport exchange;
  std::optional<PathReport> alltoallv;
  std::string no_alltoallv;  ///< why there is none
};

void print_report(const ExchangeCase& measured, const ExchangeReport& report);
/// Times in seconds, bandwidths in bytes per second.
nlohmann::ordered_json to_json(const ExchangeCase& measured, const ExchangeReport& report);

}  // namespace cartesian
