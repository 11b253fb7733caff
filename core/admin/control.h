// The control surface: documents and orders, for clients on this machine only.
#pragma once

#include "admin/admin.h"

// As moon_builtin.answer, for every path that reading does not know.
// Whether its client may order anything.
bool moon_admin_may_control(const struct moon_flow *flow);
enum moon_verdict moon_admin_control(struct moon_flow *flow, const struct moon_admin_ops *ops,
                                     void **state);
void moon_admin_control_cancel(struct moon_flow *flow, void *owner, void *state);
