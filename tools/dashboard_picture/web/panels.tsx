/** Each kind of panel, by the component that Grafana's own panel of that kind is made of. */

import React from 'react';
import { DataFrame, GrafanaTheme2, TimeRange, reduceField } from '@grafana/data';
import { BigValue, BigValueColorMode, BigValueGraphMode, TimeSeries } from '@grafana/ui';
import { Panel } from './recording';

interface Props {
  panel: Panel;
  frames: DataFrame[];
  theme: GrafanaTheme2;
  range: TimeRange;
  width: number;
  height: number;
}

export function Contents(props: Props) {
  if (!props.frames.length) {
    return <NoData {...props} />;
  }
  return props.panel.type === 'stat' ? <Stat {...props} /> : <Curves {...props} />;
}

/** As Grafana says it. */
function NoData({ width, height, theme }: Props) {
  const style = {
    display: 'flex', alignItems: 'center', justifyContent: 'center', width, height,
    color: theme.colors.text.secondary,
  };
  return <div style={style}>No data</div>;
}

function Stat({ panel, frames, theme, range, width, height }: Props) {
  const [x, y] = frames[0].fields;
  const reducer = panel.options?.reduceOptions.calcs[0];
  const { min, max, [reducer]: last } = reduceField({ field: y, reducers: ['min', 'max', reducer] });
  const ranged = { ...y, state: { ...y.state, range: { min, max, delta: max - min } } };
  return (
    <BigValue
      theme={theme}
      width={width}
      height={height}
      colorMode={panel.options?.colorMode as BigValueColorMode}
      graphMode={panel.options?.graphMode as BigValueGraphMode}
      value={y.display!(last)}
      sparkline={{ x, y: ranged, timeRange: range }}
    />
  );
}

function Curves({ panel, frames, range, width, height }: Props) {
  return (
    <TimeSeries
      frames={frames}
      timeRange={range}
      timeZone="utc"
      width={width}
      height={height}
      legend={{ calcs: [], ...panel.options?.legend }}
      options={panel.options}
    />
  );
}
