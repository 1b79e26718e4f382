/* switch.h - how the application is moved to the new side.
 *
 * check is for before the cut-over: the method is reachable and points at the old side now. move is
 * called once the old side is fenced for good and the new side is open; it can be repeated. settle
 * waits until the move is visible everywhere; writes flow again before that.
 */
#ifndef SWITCH_H
#define SWITCH_H

#include "engine/base/arena.h"
#include "engine/base/err.h"
#include "engine/base/stop.h"

typedef struct SwitchEnds {
    const char *old_host;
    unsigned old_port;
    const char *new_host;
    unsigned new_port;
} SwitchEnds;

typedef struct Switch Switch;
typedef struct SwitchOps {
    const char *name;
    /* What it is and where it points, for people, into `about` (in the switch's arena). */
    bool (*check)(Switch *self, const SwitchEnds *ends, const char **about, Err *err);
    bool (*move)(Switch *self, const SwitchEnds *ends, Err *err);
    bool (*settle)(Switch *self, Err *err);
    void (*free)(Switch *self);
} SwitchOps;
struct Switch {
    const SwitchOps *ops;
};

/* Nothing is moved; check says that somebody else has to. */
MUST_USE Switch *switch_none(void);
/* Runs a command through sh with KEYBRIDGE_OLD_HOST, _OLD_PORT, _NEW_HOST, _NEW_PORT; not 0 is a
 * failure. */
MUST_USE Switch *switch_command(const char *command, const Stop *stop);

static inline const char *switch_name(const Switch *self)
{
    return self->ops->name;
}

MUST_USE static inline bool switch_check(Switch *self, const SwitchEnds *ends, const char **about,
                                         Err *err)
{
    return self->ops->check(self, ends, about, err) ||
           err_context(err, "switch by %s", self->ops->name);
}

MUST_USE static inline bool switch_move(Switch *self, const SwitchEnds *ends, Err *err)
{
    return self->ops->move(self, ends, err) || err_context(err, "switch by %s", self->ops->name);
}

MUST_USE static inline bool switch_settle(Switch *self, Err *err)
{
    return self->ops->settle(self, err) || err_context(err, "switch by %s", self->ops->name);
}

static inline void switch_free(Switch *self)
{
    if (self)
        self->ops->free(self);
}

#endif
