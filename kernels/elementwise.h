#pragma once
// Small element-wise ops on contiguous tensors: conversion, sums, scaling, norms.

#include "base/context.h"

namespace cartesian {

/// out = in, converted. float32 and bfloat16, either way or the same.
void convert(const Context& context, const Tensor& in, const Tensor& out);
/// accumulator += addend. Same shape and dtype, float32 or bfloat16.
void add_in_place(const Context& context, const Tensor& addend, const Tensor& accumulator);
/// out = a + b. Same shape and dtype.
void add(const Context& context, const Tensor& a, const Tensor& b, const Tensor& out);
/// The sum of squares of a float32 tensor, summed in float64 by fixed blocks: same bits whatever
/// context.threads is.
double sum_of_squares(const Context& context, const Tensor& values);

}  // namespace cartesian
