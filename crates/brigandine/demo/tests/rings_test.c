#include <stdio.h>
#include "rings.h"

static int number, failures;

static void is(long found, long wanted, const char *what)
{
    number++;
    if (found == wanted) {
        printf("ok %d - %s\n", number, what);
    } else {
        printf("not ok %d - %s: %ld, not %ld\n", number, what, found, wanted);
        failures++;
    }
}

int main(void)
{
    puts("1..6");
    is(rings_in_sheet(1, 1), 1, "one ring is a sheet");
    is(rings_in_sheet(6, 3), 17, "a shifted row is one ring shorter");
    is(rings_in_sheet(0, 3), -1, "a sheet has a width");
    is(rings_above(6, 0, 2), 0, "nothing is above the first row");
    is(rings_above(6, 1, 0), 2, "a shifted ring goes through two");
    is(rings_above(6, 2, 0), 1, "a ring at the edge goes through one");
    return failures != 0;
}
