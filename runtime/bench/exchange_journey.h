#pragma once
// The exchange as an ExchangePath: the chunks of a rank's tokens, one behind another, as MoeLayer
// sends them.

#include <memory>

#include "base/context.h"
#include "comm/transport.h"
#include "runtime/bench/exchange_path.h"

namespace cartesian {

struct ExchangeCase;

/// All must outlive it. Collective. Counts what `context.metrics`, in which the transport must
/// count too, says of the steps.
std::unique_ptr<ExchangePath> make_exchange_journey(const ExchangeCase& measured,
                                                    Transport& transport, Context& context);

}  // namespace cartesian
