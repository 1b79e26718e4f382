/* settings.h - two instances compared, setting by setting, as AWS describes them.
 *
 * Every setting that a user can choose is in the table; what must differ (name, address, key,
 * creation time) isn't.
 */
#ifndef SETTINGS_H
#define SETTINGS_H

#include "aws/rds.h"

typedef struct SettingDiff {
    const char *name;
    const char *source; /* as text; "-" when it isn't set */
    const char *target;
} SettingDiff;

/* All that differ, in the arena. *compared: how many settings were looked at. */
void settings_compare(const RdsInstance *source, const RdsInstance *target, Arena *arena,
                      SettingDiff **diffs, size_t *count, size_t *compared);

#endif
