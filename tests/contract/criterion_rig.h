/* Runs the contract's cases under Criterion, each against every kind of datastore. */
#pragma once

#include <criterion/criterion.h>
#include <criterion/parameterized.h>

#include "rig.h"

struct criterion_test_params rig_kinds(void);
void rig_run(int kind, void (*open)(struct rig *rig, enum rig_kind kind), void (*run)(struct rig *rig));
