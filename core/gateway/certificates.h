// Certificates of the gateway's listeners, kept fresh while it runs: files that have changed are taken into use without a
// reload, and so are those that somebody gives. On the control thread.
//
//   worker's window --order by mailbox--> control: checked, swapped --answer by mailbox--> window -> who asked
#pragma once

#include "admin/admin.h"
#include "script/vm.h"

#include <stdio.h>

struct moon_certificate_window;
struct moon_gateway;
struct moon_loop;
struct moon_mailbox;

void moon_certificates_init(struct moon_gateway *gateway);
void moon_certificates_fini(struct moon_gateway *gateway);
// The snapshot stands and the workers are made, or a reload is over: looks at the files now and then from here on, where there
// are any.
void moon_certificates_watch(struct moon_gateway *gateway);
// Looks now, once.
void moon_certificates_look(struct moon_gateway *gateway);
void moon_certificates_stop(struct moon_gateway *gateway);

// Gives certificates of a name other texts. NULL, or why not: a text of `problem`.
const char *moon_certificates_set(struct moon_gateway *gateway, const struct moon_slice texts[3],
                                  char problem[static 400]);
// What serves, as JSON.
void moon_certificates_write(struct moon_gateway *gateway, FILE *out);

// Where one loop's scripts order. `desk`: the gateway's mailbox for orders.
struct moon_certificate_window *moon_certificate_window_new(struct moon_loop *loop,
                                                            struct moon_mailbox *desk);
// No loop runs any more, or it is the desk's own. NULL is fine.
void moon_certificate_window_free(struct moon_certificate_window *window);
const struct moon_certificate_ops *
moon_certificate_window_ops(const struct moon_certificate_window *window);
