#include <stdio.h>
#include <stdlib.h>
#include "rings.h"

int main(int argc, char **argv)
{
    int width = argc > 1 ? atoi(argv[1]) : 6, rows = argc > 2 ? atoi(argv[2]) : 3;
    long total = rings_in_sheet(width, rows);
    if (total < 0) {
        fputs("usage: weave WIDTH ROWS\n", stderr);
        return 2;
    }
    for (int row = 0; row < rows; row++) {
        int shifted = row % 2;
        fputs(shifted ? " " : "", stdout);
        for (int place = 0; place < width - shifted; place++)
            fputs(place + 1 < width - shifted ? "O " : "O\n", stdout);
    }
    printf("%ld rings\n", total);
    return 0;
}
