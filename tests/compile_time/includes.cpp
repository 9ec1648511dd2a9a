// SPDX-License-Identifier: MIT
// What the README's first program includes, alone.
#include <nha/nha.hpp>

#include <cmath>
#include <cstdio>

int main() {}
