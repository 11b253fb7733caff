// The script room's surface: evaluating configuration scripts, and the command line, which is Lua (lua/moongate/cli).
#pragma once

#include "conf/conf.h"

#include <stdbool.h>
#include <stdio.h>

struct moon_world;

// Evaluates a configuration script in a fresh VM into a model. 0, or MOON_ECONFIG with problems (syntax and runtime errors
// with file:line and traceback, a missing file, network I/O or an endless loop in evaluation).
int moon_script_evaluate(struct moon_world *world, const char *path, struct moon_model **out,
                         struct moon_report *report);

// Whether the script of a model that serves has anything to run: functions, plugins in Lua, timers. Else the model says it all.
bool moon_script_runs(const struct moon_model *model);
// Writes what such a model was evaluated from, for moon_script_restore: the path of its script and everything that it read.
void moon_script_keep(const struct moon_model *model, FILE *out);
// Evaluates again what was kept, with what was read then; as moon_script_evaluate. `path` names the text in problems.
int moon_script_restore(const char *path, struct moon_slice text, struct moon_model **out,
                        struct moon_report *report);

struct moon_run_options {
    const char *file;
    unsigned workers;    // 0: as the settings say
    const char *admin;   // address of the admin listener, or NULL
    const char *control; // path of the control socket, or NULL
    const char *state;   // directory of the last good configuration, or NULL
};

// What a good configuration holds, for the word about it.
struct moon_check_counts {
    size_t listeners, upstreams, routes;
};

// What commands may ask of the gateway; filled in by gateway/, handed over by main.c.
struct moon_cli_ops {
    // Loads and compiles the file. 0, or an error with the report filled.
    int (*check)(void *owner, const struct moon_run_options *options, struct moon_report *report,
                 struct moon_check_counts *counts);
    // Serves until it is told to stop. 0, or an error with the report filled (it never started).
    int (*run)(void *owner, const struct moon_run_options *options, struct moon_report *report);
    // Asks the gateway behind a control socket; one raw HTTP exchange. *answer is malloc'd. 0 or -errno.
    int (*ask)(void *owner, const char *path, struct moon_slice question, char **answer,
               size_t *len);
    // What the file would do with a request (admin's /explain query): malloc'd JSON. 0, or an error with the report filled.
    int (*explain)(void *owner, const struct moon_run_options *options, struct moon_slice query,
                   struct moon_report *report, char **answer);
    // The objects of the file, checked, as the admin surface's /config gives them: malloc'd JSON. 0, or an error with the
    // report filled.
    int (*model)(void *owner, const struct moon_run_options *options, struct moon_report *report,
                 char **answer);
    // Does nothing for so long.
    int (*sleep)(void *owner, uint64_t ms);
    void *owner;
};

// Boots the command line. Returns the process's exit code: 0 fine, 1 failed, 2 wrong usage, 3 differences.
int moon_cli_main(int argc, char **argv, const struct moon_cli_ops *ops);
