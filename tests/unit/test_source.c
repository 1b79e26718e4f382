#include "engine/stream/source.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Old minors can only be told apart by their number. */
static void trap_031_082_old_minors_are_known(void **state)
{
    static const struct {
        int version;
        char trouble; /* l rows are lost, m memory, 0 none */
    } cases[] = {
        {110022, 'l'}, {120022, 'l'}, {130020, 'l'}, {130021, 'm'}, {130022, 0},
        {140017, 'l'}, {140018, 'm'}, {140019, 0},   {150012, 'l'}, {150013, 'm'},
        {150014, 0},   {150020, 0},   {160008, 'l'}, {160009, 'm'}, {160010, 0},
        {170004, 'l'}, {170005, 'm'}, {170006, 0},   {180000, 0},   {190000, 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *said = source_minor_trouble(cases[i].version);
        char got = !said ? 0 : strstr(said, "lost") ? 'l' : 'm';

        if (got != cases[i].trouble)
            fail_msg("%d: %s", cases[i].version, said ? said : "nothing");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trap_031_082_old_minors_are_known),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
