/** The whole dashboard, in Grafana's grid: 24 columns, 30 px a row, 8 px between panels. */

import '@fontsource/inter/400.css';
import '@fontsource/inter/500.css';
import 'uplot/dist/uPlot.min.css';
import React from 'react';
import { createRoot } from 'react-dom/client';
import { createTheme, dateTime } from '@grafana/data';
import { GlobalStyles, PanelChrome, ThemeContext } from '@grafana/ui';
import { frames } from './frames';
import { Contents } from './panels';
import { Panel } from './recording';

const COLUMNS = 24;
const CELL = 30;
const GAP = 8;
const MARGIN = 12;

const theme = createTheme({ colors: { mode: 'dark' } });
const { begin, end, panels, series } = window.recording;
const from = dateTime(begin * 1000);
const to = dateTime(end * 1000);
const range = { from, to, raw: { from, to } };

/** Where a panel is: left, top, width, height. */
function place({ gridPos: { x, y, w, h } }: Panel, across: number) {
  const column = (across - 2 * MARGIN + GAP) / COLUMNS;
  return {
    left: MARGIN + x * column,
    top: MARGIN + y * (CELL + GAP),
    width: w * column - GAP,
    height: h * (CELL + GAP) - GAP,
  };
}

function Placed({ panel }: { panel: Panel }) {
  const { width, height, ...corner } = place(panel, window.innerWidth);
  const style: React.CSSProperties = { position: 'absolute', ...corner, width, height };
  if (panel.type === 'row') {
    return <div style={{ ...style, ...theme.typography.h5, lineHeight: `${CELL}px` }}>▾ {panel.title}</div>;
  }
  return (
    <div style={style}>
      <PanelChrome title={panel.title} width={width} height={height}>
        {(innerWidth, innerHeight) => (
          <Contents
            panel={panel}
            frames={frames(panel, series[panel.id], theme)}
            theme={theme}
            range={range}
            width={innerWidth}
            height={innerHeight}
          />
        )}
      </PanelChrome>
    </div>
  );
}

function Dashboard() {
  const bottom = Math.max(...panels.map((panel) => panel.gridPos.y + panel.gridPos.h));
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ position: 'relative', height: 2 * MARGIN + bottom * (CELL + GAP) - GAP }}>
        {panels.map((panel) => <Placed key={panel.id} panel={panel} />)}
      </div>
    </ThemeContext.Provider>
  );
}

async function draw() {
  await Promise.all(['400 12px Inter', '500 12px Inter'].map((font) => document.fonts.load(font)));
  createRoot(document.getElementById('dashboard')!).render(<Dashboard />);
  // Legends are measured, and the curves drawn again in what they leave.
  setTimeout(() => document.body.setAttribute('data-drawn', ''), 2000);
}

draw();
